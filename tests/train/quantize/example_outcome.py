"""A packed model that never was, for tests of its page."""

from __future__ import annotations

from pathlib import Path

import torch

from bedstone.quant import NF4, PackedLayer, QuantizationReport
from bedstone.quant.compare import logit_divergence
from bedstone.train.quantize.outcome import ComparedText, Outcome

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e" + "w" * 400


def compared(name, seed=0, scale=1.0):
    """A text on which two models differ."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(300, 50, generator=generator)
    other = logits + scale * torch.randn(300, 50, generator=generator)
    return ComparedText(name, logit_divergence(logits, other, torch.randint(50, (300,), generator=generator)))


def outcome(**changes):
    """A model of 24 packed layers."""
    layers = [
        PackedLayer(f"model.layers.{block}.{kind}", (128, 64), 32768, 4608, 0.09 + 0.001 * block)
        for block in range(12)
        for kind in ("self_attn.q_proj", "mlp.up_proj")
    ]
    values = {
        "folder": Path("out/small"),
        "model": "models/small",
        "layers": QuantizationReport(NF4(), tuple(layers), (("lm_head", "it is the output layer"),)),
        "dtype": "torch.float32",
        "dense_bytes": 24 * 32768 + 1000,
        "packed_bytes": 24 * 4608 + 1000,
        "texts": (compared("one.txt"), compared("two.txt", 1, 2.0)),
        "earlier": None,
        "circumstances": {"torch": "2.13", "device": "cpu"},
        "seconds": 3.0,
    }
    return Outcome(**(values | changes))
