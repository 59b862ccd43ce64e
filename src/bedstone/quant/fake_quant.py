"""Numbers rounded as inference will round them, with the gradient of numbers that were not: fake quantization.

Training has to feel the rounding, but `round` has derivative 0 and would stop it. The straight-through estimator keeps the
rounded value in the forward pass and takes the identity for the backward pass: d q(w) / d w := 1, everywhere.

    weights       trit = round(w / s) within -1 ... 1,     s = mean |w| over a tensor, row or block,  q = trit * s
    activations   code = round(x * c) within -128 ... 127, c = 127 / max |x| of the token,            q = code / c

Both are computed in float32, in the order of operations that transformers' BitNet layers use, so the values are equal bit for bit.
A strength below 1 mixes in the number that was not rounded, `w + strength * (q - w)`, for a warm-up from a dense model.

References:
    Bengio et al.: Estimating or propagating gradients through stochastic neurons, 2013, https://arxiv.org/abs/1308.3432.
    Ma et al.: The Era of 1-bit LLMs, 2024, https://arxiv.org/abs/2402.17764.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bedstone.kernels.blocks import block_absmean, scale_blocks_
from bedstone.quant.granularity import as_matrix, columns_in_block

if TYPE_CHECKING:
    from bedstone.quant.ternary import Ternary

_SMALLEST = 1e-5  # of a scale, as in BitNet: zeros stay zeros


def fake_quant_ternary(weight: torch.Tensor, scheme: Ternary, strength: float = 1.0) -> torch.Tensor:
    """Return a weight as `scheme` would pack and unpack it, with the gradient of the weight itself.

    Args:
        weight: Floating, any shape of at least one dimension.
        scheme: Which weights share a scale.
        strength: 1 for the ternary weight, 0 for the weight itself, between them a mixture.

    Returns:
        The same shape and dtype.

    >>> from bedstone.quant import Ternary
    >>> weight = torch.tensor([[0.9, -1.1, 0.1, 0.0]], requires_grad=True)
    >>> fake_quant_ternary(weight, Ternary()).detach()
    tensor([[ 0.5250, -0.5250,  0.0000,  0.0000]])
    >>> fake_quant_ternary(weight, Ternary()).sum().backward()
    >>> weight.grad
    tensor([[1., 1., 1., 1.]])
    """
    if not weight.numel() or strength == 0:
        return weight
    matrix = as_matrix(weight.detach().float())
    block = columns_in_block(weight.shape, scheme.granularity, scheme.block_size)
    inverse = 1 / absmean(matrix, scheme).clamp(min=_SMALLEST)
    rounded = scale_blocks_(matrix.clone(memory_format=torch.contiguous_format), inverse, block).round_().clamp(-1, 1)
    return _straight_through(weight, scale_blocks_(rounded, 1 / inverse, block).view(weight.shape), strength)


def fake_quant_activation(x: torch.Tensor, bits: int = 8, strength: float = 1.0) -> torch.Tensor:
    """Return activations rounded to whole multiples of a step, one step a token, with the gradient of the activations.

    Args:
        x: Floating `[..., features]`; a token is a vector along the last dimension.
        bits: Of a code, at least 2.
        strength: 1 for the rounded activations, 0 for the activations themselves, between them a mixture.

    Returns:
        The same shape and dtype.

    >>> fake_quant_activation(torch.tensor([[1.27, 0.014], [0.0, 0.0]]))
    tensor([[1.2700, 0.0100],
            [0.0000, 0.0000]])
    """
    if not x.numel() or strength == 0:
        return x
    dense, largest = x.detach().float(), 2 ** (bits - 1) - 1
    scale = largest / torch.linalg.vector_norm(dense, torch.inf, dim=-1, keepdim=True).clamp(min=_SMALLEST)
    return _straight_through(x, (dense * scale).round_().clamp(-largest - 1, largest).div_(scale), strength)


def absmean(matrix: torch.Tensor, scheme: Ternary) -> torch.Tensor:
    """Return the mean magnitude of what shares a scale.

    Args:
        matrix: float32 `[rows, columns]`, not empty.
        scheme: Which weights share a scale.

    Returns:
        float32 `[1, 1]`, `[rows, 1]` or `[rows, blocks]`, fresh.

    >>> from bedstone.quant import Ternary
    >>> absmean(torch.tensor([[1.0, -3.0], [0.0, 2.0]]), Ternary("row"))
    tensor([[2.],
            [1.]])
    """
    if scheme.granularity == "tensor":
        return matrix.abs().mean().view(1, 1)
    return block_absmean(matrix, columns_in_block(matrix.shape, scheme.granularity, scheme.block_size))


def _straight_through(x: torch.Tensor, rounded: torch.Tensor, strength: float) -> torch.Tensor:
    """Return the value of `rounded` with the gradient of `x`.

    `x - x.detach()` is an exact 0 whose derivative is 1. Unlike an `autograd.Function` this compiles, batches (`vmap`) and
    differentiates forwards and twice without a rule for each.
    """
    if strength != 1:
        rounded = torch.lerp(x.detach().float(), rounded, strength)
    return rounded.to(x.dtype) + (x - x.detach())
