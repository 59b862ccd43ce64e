"""Rotary position embedding in plain torch: pairs of elements of a head turn by an angle that grows with the position.

    (a, b)  ->  (a cos t - b sin t, b cos t + a sin t),     t = position * base^(-2 i / D) for pair i

Two layouts of the pairs are in use, and a model is trained with one of them:

    half split    element i with element i + D/2      Llama, Mistral, Qwen, Gemma
    interleaved   element 2 i with element 2 i + 1    GPT-J, Cohere, GLM

The product `x * cos + turned(x) * sin` is computed in the dtype that x and cos give together, in that order, as transformers does.

References:
    Su et al.: RoFormer, 2021, https://arxiv.org/abs/2104.09864.
"""

from __future__ import annotations

import torch


def rope(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return q and k turned; cos and sin are `[S, D]` or `[B, S, D]`."""
    cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
    turned = _neighbours if interleaved else _halves
    return q * cos + turned(q) * sin, k * cos + turned(k) * sin


def _halves(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def _neighbours(x: torch.Tensor) -> torch.Tensor:
    return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
