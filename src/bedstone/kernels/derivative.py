"""The derivative of a product with a packed weight, and the shortest way to the product.

The way through torch's dispatcher costs as much as a product with one token. A product takes it when somebody could be watching
(a tracer, a mode, a profiler, a transform, a tensor subclass); else the body is called, under an `autograd.Function` if a gradient is wanted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class Derivative:
    """The derivative of one operation of a pair: the other one, with the same packed weight.

    Both take `(tensor, *weight)`; the one that has a bias takes it last.

    Args:
        op: The operation.
        body: What it does, without torch's dispatcher.
        weight_arguments: How many arguments describe the weight.
    """

    other: Callable[..., torch.Tensor]
    """The product of the other operation, so that a derivative can be taken of a derivative."""

    def __init__(self, op: Any, body: Callable[..., torch.Tensor], weight_arguments: int) -> None:
        self.op, self.body = op, body
        self.behind = 1 + weight_arguments  # where a bias stands
        self.has_bias = len(op._schema.arguments) > self.behind  # noqa: SLF001 - the only way to read a schema

    def keep(self, ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        """Save what the backward pass needs: the packed weight."""
        del output
        ctx.fixed, tensors = _parted(inputs[1 : self.behind])
        ctx.save_for_backward(*tensors)

    def backward(self, ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        """Return the gradients of all arguments."""
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


def product_of(rule: Derivative) -> Callable[..., torch.Tensor]:
    """Return the operation as users call it: the body where nobody watches, else the operation, within transforms an `autograd.Function`.

    Args:
        rule: The derivative of the operation.
    """
    direct = _direct(rule)

    def product(first: torch.Tensor, *rest: Any) -> torch.Tensor:
        weight, bias = (rest[:-1], rest[-1]) if rule.has_bias else (rest, None)
        if _unwatched(first, weight[0]):
            if torch.is_grad_enabled() and (first.requires_grad or (bias is not None and bias.requires_grad)):
                return direct(first, bias, *weight)
            return rule.body(first, *rest)
        # What torch's own autograd asks.
        if not (torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0):  # noqa: SLF001
            return rule.op(first, *rest)
        fixed, tensors = _parted(weight)
        return transformed(first, bias, fixed, *tensors)

    transformed = _transformed(rule, product)
    return product


def _direct(rule: Derivative) -> Callable[..., torch.Tensor]:
    class Direct(torch.autograd.Function):
        """The derivative around the body itself, with nothing in between."""

        @staticmethod
        def forward(ctx: Any, first: torch.Tensor, bias: Any, *weight: Any) -> torch.Tensor:
            ctx.fixed, tensors = _parted(weight)
            ctx.save_for_backward(*tensors)
            return rule.body(first, *weight, *[bias] * rule.has_bias)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
            both = rule.gradients(ctx, grads[0], *ctx.needs_input_grad[:2])
            return (*both, *[None] * (rule.behind - 1))

    return Direct.apply


def _transformed(rule: Derivative, product: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    class Product(torch.autograd.Function):
        """The derivative as the transforms of `torch.func` and forward-mode AD want it."""

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

    return Product.apply


_is_wrapped: Callable[[torch.Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor  # pyright: ignore[reportAttributeAccessIssue]  # noqa: SLF001
_autograd_profiler_enabled: Callable[[], bool] = torch._C._autograd._profiler_enabled  # pyright: ignore[reportAttributeAccessIssue]  # noqa: SLF001
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def _unwatched(x: torch.Tensor, packed: torch.Tensor) -> bool:
    """Return whether nobody could tell that a call did not pass torch's dispatcher."""
    return (
        type(x) in _PLAIN
        and type(packed) in _PLAIN
        and not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()  # noqa: SLF001
        and not torch._C._len_torch_function_stack()  # noqa: SLF001
        and not torch._C._are_functorch_transforms_active()  # noqa: SLF001
        and forward_ad._current_level < 0  # noqa: SLF001
        and not _autograd_profiler_enabled()
        and not _is_wrapped(x)
        and not _is_wrapped(packed)
        and not torch._C._get_tracing_state()  # noqa: SLF001
        and x.device.type != "meta"
    )


def batching_rule(op: Any) -> Callable[..., Any]:
    """Return the batching rule: these operations take any leading dimensions, so a batch is one more.

    Args:
        op: The operation.
    """

    def rule(info: Any, in_dims: tuple[Any, ...], first: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, int]:
        del info
        if any(dim is not None for dim in tree_leaves(in_dims[1:])):
            raise NotImplementedError(f"{op} can be batched over its first argument only, not over a packed weight.")
        return op(first.movedim(in_dims[0], 0), *rest), 0

    return rule
