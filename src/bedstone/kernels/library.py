"""How an operation enters torch: schema, body, fake, and the derivative of a linear operation.

Operations live in the namespace `bedstone` of `torch.library`, so they compile, export, trace and show in profiles. Their
schemas take raw tensors (codes, scales) and numbers, never our classes. `define` and `impl` are used, not `custom_op`,
which costs several times as much a call.

A linear operation comes as a pair: `linear_<format>` (x to x W^T + b) and `linear_<format>_input_grad` (g to g W). Each is
the other's derivative, packed weights have none, so one rule serves every format to any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LIBRARY = torch.library.Library("bedstone", "FRAGMENT")
"""The handle that registers; it must live as long as the operations."""


def define(schema: str, body: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Register an operation that runs on every device, without a derivative of its own.

    Args:
        schema: In torch's notation, `name(Tensor x, ...) -> Tensor`.
        body: What computes it in plain torch.
        fake: What gives shapes and dtypes of the result without computing.

    Returns:
        The operation, `torch.ops.bedstone.<name>.default`.
    """
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_contiguous_strides))
    name = schema.partition("(")[0]
    LIBRARY.impl(name, body, "CompositeExplicitAutograd")
    torch.library.register_fake(f"bedstone::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.bedstone, name).default


def define_linear(
    name: str,
    weight: str,
    *,
    forward: tuple[Callable[..., Any], Callable[..., Any]],
    input_grad: tuple[Callable[..., Any], Callable[..., Any]],
) -> tuple[Callable[..., torch.Tensor], Any, Any]:
    """Register `linear_<name>` and `linear_<name>_input_grad`, differentiable in everything but the weight.

    Args:
        name: The format.
        weight: The arguments that describe the packed weight, in torch's notation.
        forward: Body and fake of `(x, *weight, bias)`.
        input_grad: Body and fake of `(grad, *weight)`.

    Returns:
        The product as users call it, and the two operations. The product is the operation itself, except inside the
        transforms of `torch.func`, which know no derivative that is registered with an operation.
    """
    linear = define(f"linear_{name}(Tensor x, {weight}, Tensor? bias) -> Tensor", *forward)
    backward = define(f"linear_{name}_input_grad(Tensor grad, {weight}) -> Tensor", *input_grad)
    weight_arguments = weight.count(",") + 1
    rule = _Derivative(linear, backward, weight_arguments)
    inverse = _Derivative(backward, linear, weight_arguments)
    for op, derivative in ((linear, rule), (backward, inverse)):
        torch.library.register_autograd(op, derivative.backward, setup_context=derivative.keep, lib=LIBRARY)
        torch.library.register_vmap(op, _batched(op), lib=LIBRARY)
    function = _function(linear, rule)

    def product(*args: Any) -> torch.Tensor:
        if torch._C._are_functorch_transforms_active():  # noqa: SLF001 - what torch's own autograd asks
            return function.apply(*args)
        return linear(*args)

    return product, linear, backward


class _Derivative:
    """The derivative of one operation of a pair: the other one, with the same packed weight.

    Both take `(tensor, *weight)`; the one that has a bias takes it last.
    """

    def __init__(self, op: Any, other: Any, weight_arguments: int) -> None:
        self.other = other
        self.behind = 1 + weight_arguments  # where a bias stands
        self.has_bias = len(op._schema.arguments) > self.behind  # noqa: SLF001 - the only way to read a schema

    def keep(self, ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        del output
        weight = inputs[1 : self.behind]
        ctx.save_for_backward(*(value for value in weight if isinstance(value, torch.Tensor)))
        ctx.fixed = [None if isinstance(value, torch.Tensor) else (value,) for value in weight]

    def backward(self, ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        tensors = iter(ctx.saved_tensors)
        weight = [next(tensors) if value is None else value[0] for value in ctx.fixed]
        rest = () if self.has_bias else (None,)  # the other one's bias
        grads: list[Any] = [None] * self.behind
        if ctx.needs_input_grad[0]:
            grads[0] = self.other(grad, *weight, *rest)
        if self.has_bias:
            grads.append(grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[self.behind] else None)
        return tuple(grads)


def _function(op: Any, derivative: _Derivative) -> Any:
    """The same derivative as an `autograd.Function`, in the form that `torch.func` accepts."""

    class Product(torch.autograd.Function):
        generate_vmap_rule = True
        forward = staticmethod(op)
        setup_context = staticmethod(derivative.keep)
        backward = staticmethod(derivative.backward)  # pyright: ignore[reportAssignmentType] - one result, one gradient

    return Product


def _batched(op: Any) -> Callable[..., Any]:
    """The batching rule: these operations take any leading dimensions, so a batch is one more."""

    def rule(info: Any, in_dims: tuple[Any, ...], first: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, int]:
        del info
        if any(dim is not None for dim in tree_leaves(in_dims[1:])):
            raise NotImplementedError(f"{op} can be batched over its first argument only, not over a packed weight.")
        return op(first.movedim(in_dims[0], 0), *rest), 0

    return rule
