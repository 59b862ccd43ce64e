"""RMSNorm and LayerNorm in plain torch.

    rms_norm(x)   = x / sqrt(mean(x^2) + eps) * (offset + weight)
    layer_norm(x) = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias

The mean is taken in float32 (float64 of float64). Of halves two orders of rounding are in use, and a model is trained with one of them:

    llama   the normalized x is rounded to the dtype of x, then multiplied by the weight in that dtype: two roundings
    gemma   everything is float32 until the end: one rounding

In float32 and float64 both are the same bits.

References:
    Zhang, Sennrich: Root Mean Square Layer Normalization, 2019, https://arxiv.org/abs/1910.07467.
    Ba, Kiros, Hinton: Layer Normalization, 2016, https://arxiv.org/abs/1607.06450.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, rounding: str) -> torch.Tensor:
    """Return x divided by its root mean square, times the weight."""
    shape = weight.shape
    if rounding == "llama":
        return (weight + offset if offset else weight) * F.rms_norm(x, shape, None, eps)
    wide = torch.promote_types(x.dtype, torch.float32)
    gain = weight.to(wide) + offset if offset else weight.to(wide)
    return F.rms_norm(x.to(wide), shape, gain, eps).to(x.dtype)


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Return x with mean 0 and variance 1, times the weight, plus the bias."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)
