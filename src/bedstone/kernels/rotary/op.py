"""The rotation as people call it, its checks and its implementations. What it computes is told in `reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import DimensionMismatchError, InvalidConfigError, ShapeMismatchError
from bedstone.kernels.composed import ComposedOp, spec_of
from bedstone.kernels.implementation import KernelImpl
from bedstone.kernels.rotary import liger, reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from bedstone.kernels.implementation import KernelSpec
    from bedstone.kernels.registry import Sample

_QUERY = 4  # dimensions: batch, heads, tokens, columns


def rope(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor | None = None,
    *,
    interleaved: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return queries and keys turned by the angles of their positions.

    Args:
        q: `[B, H, S, D]`, D even.
        k: `[B, G, S, D]`, of the same dtype; G may differ from H.
        cos: `[S, D]` or `[B, S, D]`: the cosine for each element of a head, so that each angle is there twice. With `position_ids`
            a table `[P, D]` of all positions.
        sin: Of the same shape.
        position_ids: int64 `[S]` or `[B, S]`: which rows of the tables; they begin anew with each document of a packed row.
        interleaved: Pairs are neighbours, not halves; see `reference.py`. Angles lie as the pairs do.

    Returns:
        q and k, new tensors. Differentiable in q and k.

    Raises:
        DimensionMismatchError: q or k is not 4-dimensional.
        ShapeMismatchError: The shapes do not fit.
        InvalidConfigError: D is odd.

    >>> angles = torch.arange(3.0).outer(torch.tensor([1.0, 0.1])).repeat(1, 2)  # 3 positions, D = 4
    >>> q, k = torch.ones(1, 2, 3, 4), torch.ones(1, 1, 3, 4)
    >>> turned, _ = rope(q, k, angles.cos(), angles.sin())
    >>> torch.equal(turned[:, :, 0], q[:, :, 0]), torch.allclose(turned.norm(dim=-1), q.norm(dim=-1))
    (True, True)
    """
    _check_heads(q, k)
    if position_ids is not None:
        if cos.ndim != 2:  # noqa: PLR2004 - a table
            raise DimensionMismatchError(expected=2, actual=cos.ndim, argument="cos")
        cos, sin = cos[position_ids], sin[position_ids]
    batch, _, tokens, columns = q.shape
    allowed = ((tokens, columns), (1, tokens, columns), (batch, tokens, columns))
    for name, table in (("cos", cos), ("sin", sin)):
        if tuple(table.shape) not in allowed:
            raise ShapeMismatchError(expected=allowed[-1], actual=tuple(table.shape), argument=name)
    return rope_op(q, k, cos, sin, interleaved)


def _check_heads(q: torch.Tensor, k: torch.Tensor) -> None:
    for name, heads in (("q", q), ("k", k)):
        if heads.ndim != _QUERY:
            raise DimensionMismatchError(expected=_QUERY, actual=heads.ndim, argument=name)
    expected = (q.shape[0], k.shape[1], *q.shape[2:])
    if tuple(k.shape) != expected:
        raise ShapeMismatchError(expected=expected, actual=tuple(k.shape), argument="k")
    if q.shape[-1] % 2:
        message = f"`q` has {q.shape[-1]} columns a head; pairs want an even number."
        raise InvalidConfigError(message, argument="q", value=q.shape[-1])


def _spec(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool) -> KernelSpec:
    options = [
        *["interleaved"] * interleaved,
        *["mixed"] * (cos.dtype != q.dtype or sin.dtype != q.dtype),
        *["tables"] * (cos.requires_grad or sin.requires_grad),
    ]
    return spec_of(q, q.shape[0] * q.shape[1] * q.shape[2], 1, q.shape[3], " ".join(options), (k,))


def _workspace(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool) -> int:
    """Two products and what is turned, of q and of k one after the other."""
    del sin, interleaved
    wide = torch.promote_types(q.dtype, cos.dtype).itemsize
    return 3 * wide * max(q.numel(), k.numel())


def _sample(*, interleaved: bool) -> Sample:
    def make(spec: KernelSpec, normal: Callable[..., torch.Tensor]) -> tuple[Any, ...]:
        columns = max(spec.columns // 2, 1) * 2
        angles = torch.arange(spec.inputs, device=spec.device).outer(
            torch.logspace(0, -4, columns // 2).to(spec.device)
        )
        angles = angles.repeat_interleave(2, 1) if interleaved else angles.repeat(1, 2)
        heads = (normal(1, 2, spec.inputs, columns), normal(1, 1, spec.inputs, columns))
        return *heads, angles.cos().to(spec.dtype), angles.sin().to(spec.dtype), interleaved

    return make


rope_op = ComposedOp(
    "rope",
    _spec,
    liger.IMPLEMENTATION,
    KernelImpl("reference", reference.rope, _workspace),
    differentiable=2,
    samples={"halves": _sample(interleaved=False), "interleaved": _sample(interleaved=True)},
)
