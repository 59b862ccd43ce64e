"""Gated units in plain torch: a gate that passes through a curve, times what it lets through.

    swiglu(gate, up) = silu(gate) * up            silu(x) = x / (1 + exp(-x))
    geglu(gate, up)  = gelu(gate) * up            gelu(x) = x P(normal <= x), exactly, or by a tanh

Of halves the curve is rounded to the dtype before the product, as in the models of transformers.

References:
    Shazeer: GLU Variants Improve Transformer, 2020, https://arxiv.org/abs/2002.05202.
    Hendrycks, Gimpel: Gaussian Error Linear Units, 2016, https://arxiv.org/abs/1606.08415 (the tanh form).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

if TYPE_CHECKING:
    import torch


def glu(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    """Return the curve of the gate, times up."""
    if activation == "silu":
        return F.silu(gate) * up
    return F.gelu(gate, approximate="tanh" if activation == "gelu_tanh" else "none") * up
