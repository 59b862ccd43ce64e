"""How an operation enters torch: schema, body, fake, and the derivative of a linear operation.

Operations live in the namespace `bedstone` of `torch.library`, so they compile, export, trace and show in profiles. Their
schemas take raw tensors (codes, scales) and numbers, never our classes. `define` and `impl` are used, not `custom_op`,
which costs several times as much a call.

A linear operation comes as a pair: `linear_<format>` (x to x W^T + b) and `linear_<format>_input_grad` (g to g W). Each is
the other's derivative, packed weights have none, so one rule serves every format to any order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import UnknownNameError
from bedstone.kernels.derivative import Derivative, batching_rule, product_of

if TYPE_CHECKING:
    from collections.abc import Callable

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

    Part of it, the tiles, is kept from call to call (`core.memory.free_workspaces` gives it back). What the vendor's matrix product
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
    >>> from bedstone.kernels.policies import policy
    >>> with policy("exact"):
    ...     workspace_bytes("linear_8bit", torch.empty(64, 576), codes, absmax, 576, None)
    1343488
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
    forward, input_grad = _without_views(forward), _without_views(input_grad)
    linear = define(f"linear_{name}(Tensor x, {weight}, Tensor? bias) -> Tensor", forward)
    backward = define(f"linear_{name}_input_grad(Tensor grad, {weight}) -> Tensor", input_grad)
    weight_arguments = weight.count(",") + 1
    rules = (
        Derivative(linear, forward.body, weight_arguments),
        Derivative(backward, input_grad.body, weight_arguments),
    )
    products = []
    for rule in rules:
        torch.library.register_autograd(rule.op, rule.backward, setup_context=rule.keep, lib=LIBRARY)
        torch.library.register_vmap(rule.op, batching_rule(rule.op), lib=LIBRARY)
        products.append(product_of(rule))
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
