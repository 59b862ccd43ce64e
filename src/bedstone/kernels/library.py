"""How an operation enters torch: schema, body, fake, and the derivative of a linear operation.

Operations live in the namespace `bedstone` of `torch.library`, so they compile, export, trace and show in profiles. Their
schemas take raw tensors (codes, scales) and numbers, never our classes. `define` and `impl` are used, not `custom_op`,
which costs several times as much a call.

A linear operation comes as a pair: `linear_<format>` (x to x W^T + b) and `linear_<format>_input_grad` (g to g W). Each is
the other's derivative, packed weights have none, so one rule serves every format to any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves

from bedstone.core.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LIBRARY = torch.library.Library("bedstone", "FRAGMENT")
"""The handle that registers; it must live as long as the operations."""

_WORKSPACES: dict[str, Callable[..., int]] = {}


@dataclass(frozen=True)
class Operation:
    """What an operation consists of, three functions of the same arguments.

    Attributes:
        body: Computes it in plain torch.
        fake: Gives shapes and dtypes of the result without computing.
        workspace: Gives the bytes that the body needs besides arguments and result.
    """

    body: Callable[..., Any]
    fake: Callable[..., Any]
    workspace: Callable[..., int]


def workspace_bytes(op: str, *args: Any) -> int:
    """Return the most that an operation takes besides its arguments and its result: what a fake run does not show.

    Part of it, the tiles, is kept from call to call (`tiles.free_scratch` gives it back). What the vendor's matrix product
    takes for itself is not in it.

    Args:
        op: The name of an operation, such as `linear_4bit`.
        args: Its arguments, contiguous; tensors may be on the meta device, since only shapes and dtypes are read.

    Returns:
        Bytes.

    Raises:
        UnknownNameError: No operation has this name.

    >>> import bedstone.kernels.eightbit
    >>> codes, absmax = torch.empty(576, 576, dtype=torch.int8, device="meta"), torch.empty(576, 1, device="meta")
    >>> workspace_bytes("linear_8bit", torch.empty(1, 576), codes, absmax, 576, None)
    1345792
    """
    if op not in _WORKSPACES:
        raise UnknownNameError("packed operation", op, _WORKSPACES)
    return _WORKSPACES[op](*args)


def define(schema: str, operation: Operation) -> Any:
    """Register an operation that runs on every device, without a derivative of its own.

    Args:
        schema: In torch's notation, `name(Tensor x, ...) -> Tensor`.
        operation: What it does.

    Returns:
        The operation, `torch.ops.bedstone.<name>.default`.
    """
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_contiguous_strides))
    name = schema.partition("(")[0]
    LIBRARY.impl(name, operation.body, "CompositeExplicitAutograd")
    torch.library.register_fake(f"bedstone::{name}", operation.fake, lib=LIBRARY)
    _WORKSPACES[name] = operation.workspace
    return getattr(torch.ops.bedstone, name).default


def define_linear(
    name: str, weight: str, *, forward: Operation, input_grad: Operation
) -> tuple[Callable[..., torch.Tensor], Any, Any]:
    """Register `linear_<name>` and `linear_<name>_input_grad`, differentiable in everything but the weight.

    Args:
        name: The format.
        weight: The arguments that describe the packed weight, in torch's notation.
        forward: Of `(x, *weight, bias)`.
        input_grad: Of `(grad, *weight)`.

    Returns:
        The product as users call it, and the two operations. The product is the operation itself, except inside the
        transforms of `torch.func` and in forward-mode AD, which know no derivative that is registered with an operation.
    """
    linear = define(f"linear_{name}(Tensor x, {weight}, Tensor? bias) -> Tensor", _without_views(forward))
    backward = define(f"linear_{name}_input_grad(Tensor grad, {weight}) -> Tensor", _without_views(input_grad))
    weight_arguments = weight.count(",") + 1
    rules = _Derivative(linear, weight_arguments), _Derivative(backward, weight_arguments)
    products = []
    for rule in rules:
        torch.library.register_autograd(rule.op, rule.backward, setup_context=rule.keep, lib=LIBRARY)
        torch.library.register_vmap(rule.op, _batched(rule.op), lib=LIBRARY)
        products.append(_product(rule))
    rules[1].other, rules[0].other = products
    return products[0], linear, backward


def _without_views(operation: Operation) -> Operation:
    """The same operation, whose result autograd does not take for a view of the matrix that the body computed.

    Callers write into a product in place (`result += ...`, as AdaLoRA does), which autograd refuses for a view that an
    operation returns. The memory is the result's alone, so a body may end with a reshape.
    """

    def body(*args: Any) -> torch.Tensor:
        result = operation.body(*args)
        return torch.ops.aten._unsafe_view.default(result, result.shape) if result._is_view() else result  # noqa: SLF001

    return replace(operation, body=body)


class _Derivative:
    """The derivative of one operation of a pair: the other one, with the same packed weight.

    Both take `(tensor, *weight)`; the one that has a bias takes it last.
    """

    other: Callable[..., torch.Tensor]
    """The product of the other operation, so that a derivative can be taken of a derivative."""

    def __init__(self, op: Any, weight_arguments: int) -> None:
        self.op = op
        self.behind = 1 + weight_arguments  # where a bias stands
        self.has_bias = len(op._schema.arguments) > self.behind  # noqa: SLF001 - the only way to read a schema

    def keep(self, ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        del output
        ctx.fixed, tensors = _parted(inputs[1 : self.behind])
        ctx.save_for_backward(*tensors)

    def backward(self, ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        needs_bias = self.has_bias and ctx.needs_input_grad[self.behind]
        first, bias = self.gradients(ctx, grad, ctx.needs_input_grad[0], needs_bias)
        return (first, *[None] * (self.behind - 1), *[bias] * self.has_bias)

    def gradients(self, ctx: Any, grad: torch.Tensor, of_first: bool, of_bias: bool) -> tuple[Any, Any]:
        """Return the gradients of the first argument and of the bias, those that are asked for."""
        rest = () if self.has_bias else (None,)  # the other one's bias
        first = self.other(grad, *ctx.fixed.whole(ctx.saved_tensors), *rest) if of_first else None
        rows = math.prod(grad.shape[:-1])
        return first, grad.reshape(rows, grad.shape[-1]).sum(0) if of_bias else None


class _Fixed:
    """The arguments of a call that are no tensors, in their places; one opaque value to the transforms of `torch.func`."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values

    def whole(self, tensors: Iterable[torch.Tensor]) -> list[Any]:
        """Return all arguments, the tensors put back."""
        remaining = iter(tensors)
        return [next(remaining) if value is _TENSOR else value for value in self.values]


_TENSOR = object()


def _parted(arguments: Sequence[Any]) -> tuple[_Fixed, list[torch.Tensor]]:
    fixed = _Fixed([_TENSOR if isinstance(value, torch.Tensor) else value for value in arguments])
    return fixed, [value for value in arguments if isinstance(value, torch.Tensor)]


def _product(rule: _Derivative) -> Callable[..., torch.Tensor]:
    """The operation as users call it: itself, or an `autograd.Function` with the same derivative."""

    class Product(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(first: torch.Tensor, bias: Any, fixed: _Fixed, *tensors: torch.Tensor) -> torch.Tensor:
            return rule.op(first, *fixed.whole(tensors), *[bias] * rule.has_bias)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            del output
            _, _, ctx.fixed, *tensors = inputs
            ctx.save_for_backward(*tensors)
            ctx.save_for_forward(*tensors)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
            both = rule.gradients(ctx, grads[0], *ctx.needs_input_grad[:2])
            return (*both, None, *[None] * len(ctx.saved_tensors))

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
            first, bias, *_ = tangents  # linear in both, so it is its own derivative
            moved = product(first, *ctx.fixed.whole(ctx.saved_tensors), *[None] * rule.has_bias)
            return moved if bias is None else moved + bias.to(moved.dtype)

    def product(first: torch.Tensor, *rest: Any) -> torch.Tensor:
        # What torch's own autograd asks.
        if not (torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0):  # noqa: SLF001
            return rule.op(first, *rest)
        fixed, tensors = _parted(rest[: rule.behind - 1])
        return Product.apply(first, rest[-1] if rule.has_bias else None, fixed, *tensors)

    return product


def _batched(op: Any) -> Callable[..., Any]:
    """The batching rule: these operations take any leading dimensions, so a batch is one more."""

    def rule(info: Any, in_dims: tuple[Any, ...], first: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, int]:
        del info
        if any(dim is not None for dim in tree_leaves(in_dims[1:])):
            raise NotImplementedError(f"{op} can be batched over its first argument only, not over a packed weight.")
        return op(first.movedim(in_dims[0], 0), *rest), 0

    return rule
