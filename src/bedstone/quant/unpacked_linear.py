"""The product with a packed weight for a scheme that has no operation of its own: unpack, multiply, forget.

Keeps the parts for the backward pass, never the dense weight, which is unpacked again. In plain torch, so a scheme of
another package gets gradients, `torch.compile` and `vmap` without writing more than `pack` and `unpack`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bedstone.quant.scheme import Parts, Scheme


class _Packing:
    """How a weight is packed, as one opaque value, which the transforms of `torch.func` leave alone."""

    def __init__(self, scheme: Scheme, names: tuple[str, ...], shape: tuple[int, ...]) -> None:
        self.scheme, self.names, self.shape = scheme, names, shape

    def unpack(self, tensors: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        return self.scheme.unpack(dict(zip(self.names, tensors, strict=True)), self.shape, dtype)


class _Unpacked(torch.autograd.Function):
    """`x @ unpack(parts).T`; linear in x, so it is its own derivative in forward mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, packing: _Packing, *parts: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, packing.unpack(parts, x.dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        del output
        _, ctx.packing, *parts = inputs
        ctx.save_for_backward(*parts)
        ctx.save_for_forward(*parts)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (grad,) = grads
        parts = ctx.saved_tensors
        return grad @ ctx.packing.unpack(parts, grad.dtype), None, *[None] * len(parts)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
        tangent = tangents[0]
        return functional.linear(tangent, ctx.packing.unpack(ctx.saved_tensors, tangent.dtype))


def unpacked_linear(
    scheme: Scheme, x: torch.Tensor, parts: Parts, shape: Sequence[int], bias: torch.Tensor | None
) -> torch.Tensor:
    """Return `x @ weight.T + bias`; see `Scheme.linear`."""
    product: torch.Tensor = _Unpacked.apply(x, _Packing(scheme, tuple(parts), tuple(shape)), *parts.values())
    return product if bias is None else product + bias.to(product.dtype)
