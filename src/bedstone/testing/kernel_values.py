"""The part of the kernel kit for operations whose implementations agree in values: norms, rotations, attention, losses.

What an implementation gives is compared with what plain torch gives for the same arguments in float64, and so are the gradients of an
operation that runs under torch's autograd. How near it must come is said by its numerics and the dtype.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels import policy
from bedstone.kernels.agreement import LIMITS
from bedstone.kernels.composed import ComposedOp
from bedstone.testing.claims import listed, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from bedstone.kernels import KernelImpl, KernelOp

    Arguments = tuple[Any, ...]

_ROUNDINGS = 4  # of a dtype, in a result: of intermediates too


def check_values(made: KernelImpl, op: KernelOp, arguments: Arguments, where: str) -> None:
    """Check results and gradients; raise AssertionError where they are not what plain torch computes in float64.

    Args:
        made: The implementation.
        op: Its operation.
        arguments: Of the operation; `made` takes their specification.
        where: What stands behind each message.
    """
    expected = listed(op.reference.call(*map(_widened, arguments)))
    _near(made, listed(made.call(*arguments)), expected, arguments, f"Its result is not near float64's. ({where})")
    if isinstance(op, ComposedOp) and _takes(made, op, _recorded(op, arguments)):
        found, exact = _gradients(made, op, arguments), _gradients(op.reference, op, _all(_widened, arguments))
        _near(made, found, exact, arguments, f"Its gradients are not near float64's. ({where})")
    for how, change in (("whose elements lie apart", _apart), ("that begin in the midst of memory", _misaligned)):
        changed = _all(change, arguments)
        if _takes(made, op, changed):
            message = f"Arguments {how} give something else. ({where})"
            _near(made, listed(made.call(*changed)), expected, arguments, message)
    if arguments[0].numel():
        _check_not_finite(made, op, arguments, where)


def check_in_torch(made: KernelImpl, op: KernelOp, arguments: Arguments) -> None:
    """Check how torch sees the operation when it runs in an implementation: `opcheck`, or one graph of the compiler.

    Args:
        made: One that the operation has.
        op: The operation.
        arguments: Small ones.
    """
    with policy(f"require:{made.name}"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*should not be instantiated", category=DeprecationWarning)
        if not isinstance(op, ComposedOp):
            torch.library.opcheck(getattr(torch.ops.bedstone, op.name).default, arguments)
            return
        torch.compiler.reset()
        compiled = torch.compile(lambda *given: op(*given), backend="aot_eager", fullgraph=True)  # noqa: PLW0108 - a function
        found, expected = listed(compiled(*arguments)), listed(op(*arguments))
    _near(made, found, expected, arguments, f"Compiled, {op.name} gives something else.")


def _takes(made: KernelImpl, op: KernelOp, arguments: Arguments) -> bool:
    return not made.cannot(op.describe(*arguments))


def _near(
    made: KernelImpl, found: list[torch.Tensor], expected: list[torch.Tensor], arguments: Arguments, message: str
) -> None:
    rounding = _ROUNDINGS * max(torch.finfo(arguments[0].dtype).eps, torch.finfo(torch.float32).eps)
    limit = LIMITS[made.numerics] + rounding
    for ours, theirs in zip(found, expected, strict=True):
        size = theirs.double().abs().nan_to_num(0, 0, 0)
        # Samples are of the size of 1, and so is what cancels where a result is small.
        allowed = limit * (size + max(float(size.max()) if size.numel() else 0.0, 1.0))
        away = (ours.double() - theirs.double()).abs()
        alike = (away <= allowed) | (ours == theirs) | (ours.isnan() & theirs.isnan())
        worst = (
            f" At worst {float((away / allowed).nan_to_num(float('inf')).max()):.3g} times what may be."
            if not alike.all()
            else ""
        )
        require(bool(alike.all()), message + worst)


def _gradients(made: KernelImpl, op: ComposedOp, arguments: Arguments) -> list[torch.Tensor]:
    recorded = _recorded(op, arguments)
    results = listed(made.call(*recorded))
    generator = torch.Generator().manual_seed(1)
    above = [torch.randn(each.shape, generator=generator, dtype=torch.float64).to(each) for each in results]
    inputs = [each for each in recorded if isinstance(each, torch.Tensor) and each.requires_grad]
    return list(torch.autograd.grad(results, inputs, above))


def _recorded(op: ComposedOp, arguments: Arguments) -> Arguments:
    first, rest = arguments[: op.differentiable], arguments[op.differentiable :]
    return (*_all(lambda each: each.detach().clone().requires_grad_(), first), *rest)


def _check_not_finite(made: KernelImpl, op: KernelOp, arguments: Arguments, where: str) -> None:
    for bad in (float("nan"), float("inf")):
        first = arguments[0].clone()
        first.view(-1)[-1] = bad
        given = (first, *arguments[1:])
        for ours, theirs in zip(listed(made.call(*given)), listed(op.reference.call(*given)), strict=True):
            reached = torch.equal(ours.isfinite(), theirs.isfinite())
            require(reached, f"{bad} in an argument does not reach what it reaches in plain torch. ({where})")


def _all(change: Callable[[torch.Tensor], torch.Tensor], arguments: Arguments) -> Arguments:
    return tuple(change(each) if isinstance(each, torch.Tensor) else each for each in arguments)


def _widened(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _apart(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.ndim:
        return tensor
    wide = torch.empty(*tensor.shape[:-1], 2 * tensor.shape[-1], dtype=tensor.dtype, device=tensor.device)
    return wide[..., ::2].copy_(tensor)


def _misaligned(tensor: torch.Tensor) -> torch.Tensor:
    memory = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device)
    return memory[1:].view(tensor.shape).copy_(tensor)
