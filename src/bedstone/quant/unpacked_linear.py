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


class _Unpacked(torch.autograd.Function):
    """`x @ unpack(parts).T`; parts are tensors behind the fixed arguments."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, scheme: Scheme, names: tuple[str, ...], shape: Any, *parts: torch.Tensor) -> Any:
        return functional.linear(x, scheme.unpack(dict(zip(names, parts, strict=True)), shape, x.dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        del output
        _, ctx.scheme, ctx.names, ctx.shape, *parts = inputs
        ctx.save_for_backward(*parts)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (grad,) = grads
        weight = ctx.scheme.unpack(dict(zip(ctx.names, ctx.saved_tensors, strict=True)), ctx.shape, grad.dtype)
        return grad @ weight, None, None, None, *[None] * len(ctx.names)


def unpacked_linear(
    scheme: Scheme, x: torch.Tensor, parts: Parts, shape: Sequence[int], bias: torch.Tensor | None
) -> torch.Tensor:
    """Return `x @ weight.T + bias`; see `Scheme.linear`."""
    product: torch.Tensor = _Unpacked.apply(x, scheme, tuple(parts), tuple(shape), *parts.values())
    return product if bias is None else product + bias.to(product.dtype)
