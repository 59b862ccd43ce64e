"""Projections with LoRA that keep less for the backward pass than their parts would, in plain torch.

    y  = x W^T + s (x A^T) B^T
    dx = dy W + s (dy B) A,    dA = s (dy B)^T x,    dB = s dy^T (x A^T)          W is frozen

Composed of layers, as peft does it, the second term is three matrices of the size of y on the way to y, and x is kept once more for each
projection where the adapter has another dtype. In an MLP, down(silu(gate) * up), four matrices of the size of gate are kept: gate, its curve,
up, and their product. Here the second term is added to y where it lies, x is kept as it is and once, x A^T besides, which is small; and of an
MLP only gate and up are kept, since curve and product are computed again.

The frozen product is torch's `F.linear` under torch's own autograd, so W may be any tensor that it takes: a packed one is never dequantized as
a whole, nor kept. While `torch.compile` traces, the plain composition is traced: it decides itself what to compute again.

References:
    Hu et al.: LoRA, 2021, https://arxiv.org/abs/2106.09685. Chen et al.: Training Deep Nets with Sublinear Memory Cost, 2016,
    https://arxiv.org/abs/1604.06174 (to compute again instead of keeping).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from bedstone.core.errors import ShapeMismatchError
from bedstone.kernels.gated.op import ACTIVATIONS, Activation, glu, glu_op

if TYPE_CHECKING:
    from collections.abc import Sequence


class LoraProjection(NamedTuple):
    """A frozen projection and its adapter.

    Attributes:
        weight: W, `[N, K]`, dense or packed; no gradient is computed for it.
        a: A, `[r, K]`.
        b: B, `[N, r]`, of the dtype of A, which may be wider than that of x.
        scale: s, such as alpha / r.
        bias: `[N]`, or None.
    """

    weight: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    scale: float
    bias: torch.Tensor | None = None


def lora_linear(x: torch.Tensor, *projections: LoraProjection) -> tuple[torch.Tensor, ...]:
    """Return `x W^T + bias + s (x A^T) B^T` for each projection; those of one x, such as query, key and value, belong into one call.

    Args:
        x: `[..., K]`, floating.
        projections: One or more.

    Returns:
        `[..., N]` for each, of the dtype of x. Differentiable once in x, A, B and bias. There is no dropout.

    Raises:
        ShapeMismatchError: A or B does not fit the weight.

    >>> weight, a, b = torch.eye(2), torch.ones(1, 2), torch.tensor([[1.0], [0.0]])
    >>> lora_linear(torch.tensor([[1.0, 2.0]]), LoraProjection(weight, a, b, 0.5))
    (tensor([[2.5000, 2.0000]]),)
    """
    _check(projections)
    if torch.compiler.is_compiling():
        return tuple(_composed(x, each) for each in projections)
    rows = x.reshape(-1, x.shape[-1])
    found = _with_adapters(rows, (rows.detach(),), "", projections)
    return tuple(each.view(*x.shape[:-1], each.shape[-1]) for each in found)


def lora_mlp(
    x: torch.Tensor, gate: LoraProjection, up: LoraProjection, down: LoraProjection, activation: Activation = "silu"
) -> torch.Tensor:
    """Return `down(curve(gate(x)) * up(x))`, each with its adapter.

    Args:
        x: `[..., K]`, floating.
        gate: To `[..., I]`.
        up: To `[..., I]`.
        down: From `[..., I]`.
        activation: The curve, as of `glu`.

    Returns:
        `[..., N]`, of the dtype of x. Differentiable once in x and in A, B and bias of each.

    Raises:
        ShapeMismatchError: A or B does not fit its weight.
        InvalidConfigError: There is no such curve.

    >>> one = LoraProjection(torch.eye(2), torch.zeros(1, 2), torch.zeros(2, 1), 1.0)
    >>> lora_mlp(torch.tensor([[20.0, -20.0]]), one, one, one).round()
    tensor([[400.,   0.]])
    """
    _check((gate, up, down))
    if torch.compiler.is_compiling() or activation not in ACTIVATIONS:
        return _composed(glu(_composed(x, gate), _composed(x, up), activation), down)
    gated, let = lora_linear(x.reshape(-1, x.shape[-1]), gate, up)
    hidden = _Glu.apply(gated, let, activation)
    (found,) = _with_adapters(hidden, (gated.detach(), let.detach()), activation, (down,))
    return found.view(*x.shape[:-1], found.shape[-1])


def _composed(x: torch.Tensor, each: LoraProjection) -> torch.Tensor:
    """The same by torch's autograd, which keeps what it needs."""
    added = F.linear(F.linear(x.to(each.a.dtype), each.a), each.b) * each.scale
    return (F.linear(x, each.weight, each.bias) + added).to(x.dtype)


def _with_adapters(
    x: torch.Tensor, kept: tuple[torch.Tensor, ...], activation: str, projections: Sequence[LoraProjection]
) -> tuple[torch.Tensor, ...]:
    """Return the frozen products, to which the adapters' are added where they lie.

    Args:
        x: `[M, K]`.
        kept: What x is computed again from in the backward pass: itself, or gate and up.
        activation: The curve between gate and up; empty for x itself.
        projections: One or more.
    """
    flat: list[torch.Tensor] = []
    for each in projections:
        flat += [F.linear(x, each.weight, each.bias), each.a, each.b]
    return _Added.apply(x, kept, activation, [each.scale for each in projections], *flat)  # pyright: ignore[reportReturnType]


class _Added(torch.autograd.Function):
    """Adds s (x A^T) B^T to each y where it lies."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        kept: tuple[torch.Tensor, ...],
        activation: str,
        scales: list[float],
        *flat: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        ctx.activation, ctx.scales, ctx.kept = activation, scales, len(kept)
        ys: tuple[torch.Tensor, ...] = flat[::3]
        small: list[torch.Tensor] = []
        for y, a, b, scale in zip(ys, flat[1::3], flat[2::3], scales, strict=True):
            x = x.to(a.dtype)  # once, where all adapters have one dtype
            inner = x @ a.t()
            small += [inner, a, b]
            if a.dtype is y.dtype:
                y.addmm_(inner, b.t(), alpha=scale)
            else:
                y.add_(inner @ b.t(), alpha=scale)
        ctx.mark_dirty(*ys)
        ctx.save_for_backward(*kept, *small)
        return ys

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        saved = ctx.saved_tensors
        kept, small = saved[: ctx.kept], saved[ctx.kept :]
        dtype, of_x = kept[0].dtype, None
        flat: list[torch.Tensor | None] = []
        of_inners: list[torch.Tensor] = []
        for place, (grad, scale) in enumerate(zip(grads, ctx.scales, strict=True)):
            inner, a, b = small[3 * place : 3 * place + 3]
            wide = grad.to(a.dtype)
            of_inners.append((wide @ b).mul_(scale))
            of_y, _, of_b = ctx.needs_input_grad[4 + 3 * place : 7 + 3 * place]
            flat += [grad if of_y else None, None, (wide.t() @ inner).mul_(scale) if of_b else None]
        x = kept[0] if ctx.kept == 1 else _curve(kept[0], ctx.activation).mul_(kept[1])
        for place, of_inner in enumerate(of_inners):
            x = x.to(of_inner.dtype)
            if ctx.needs_input_grad[5 + 3 * place]:
                flat[3 * place + 1] = of_inner.t() @ x
        del x  # computed again, it is as large as its gradient
        if ctx.needs_input_grad[0]:
            for of_inner, a in zip(of_inners, small[1::3], strict=True):
                of_x = of_inner @ a if of_x is None else of_x.addmm_(of_inner, a)
        return (None if of_x is None else of_x.to(dtype), None, None, None, *flat)


class _Glu(torch.autograd.Function):
    """A gated unit that keeps gate and up, and computes its curve again."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
        ctx.activation = activation
        ctx.save_for_backward(gate, up)
        return glu_op(gate, up, activation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up = ctx.saved_tensors
        of_up = _curve(gate, ctx.activation).mul_(grads[0])
        of_curve = grads[0] * up
        if ctx.activation == "silu":
            return torch.ops.aten.silu_backward(of_curve, gate), of_up, None
        tanh = "tanh" if ctx.activation == "gelu_tanh" else "none"
        return torch.ops.aten.gelu_backward(of_curve, gate, approximate=tanh), of_up, None


def _curve(gate: torch.Tensor, activation: str) -> torch.Tensor:
    if activation == "silu":
        return F.silu(gate)
    return F.gelu(gate, approximate="tanh" if activation == "gelu_tanh" else "none")


def _check(projections: Sequence[LoraProjection]) -> None:
    for each in projections:
        rows, columns = each.weight.shape
        rank = len(each.a)
        for name, matrix, expected in (("a", each.a, (rank, columns)), ("b", each.b, (rows, rank))):
            if tuple(matrix.shape) != expected:
                raise ShapeMismatchError(expected=expected, actual=tuple(matrix.shape), argument=name)
