"""Whether a module is replaced, by which forward, and why.

A module is left alone if nothing would be won: when plain torch runs either way and the new forward makes as many calls of torch as the
old one. Where it makes fewer, each call that is saved is a few microseconds, which decides for one token and does not matter for many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from bedstone.core.errors import CoreError, UnknownNameError
from bedstone.kernels.agreement import LIMITS
from bedstone.kernels.modules.binding import BoundOp
from bedstone.kernels.modules.forward import is_ours
from bedstone.kernels.modules.trial import Trial, compare
from bedstone.kernels.policies import against_policy, current_policy, required_implementation
from bedstone.kernels.policies import policy as holding

if TYPE_CHECKING:
    from torch import nn

    from bedstone.kernels.implementation import Numerics
    from bedstone.kernels.modules.replacement import Forward, Replacement


class Decision(NamedTuple):
    """What became of a module: the new forward and what it was compared with, or none; and why."""

    reason: str
    forward: Forward | None = None
    inputs: tuple[torch.Tensor, ...] = ()


def decide(module: nn.Module, replacement: Replacement, policy: str) -> Decision:
    """Return whether a recognised module is replaced.

    Args:
        module: Not changed.
        replacement: That recognised it.
        policy: That chooses implementations.

    Raises:
        UnknownNameError: The policy requires an implementation that no operation has.
    """
    reason = _left_alone(module) or replacement.unfit(module)
    if reason:
        return Decision(reason)
    try:
        with holding(policy):
            return _tried(module, replacement)
    except UnknownNameError:
        raise
    except CoreError as error:
        return Decision(error.message.rstrip("."))
    except Exception as error:  # noqa: BLE001 - a module of anybody's; that it failed is its reason
        return Decision(f"it could not be compared, {type(error).__name__}: {next(iter(str(error).splitlines()), '')}")


def _left_alone(module: nn.Module) -> str:
    if is_ours(module):
        return "it is replaced already"
    if "forward" in vars(module):
        return "somebody else has replaced its forward"
    if any(each.is_meta for each in module.parameters()):
        return "its weights are on meta"
    if not any(each.is_floating_point() for each in module.parameters()):
        return "no parameter tells its dtype"
    return ""


def _tried(module: nn.Module, replacement: Replacement) -> Decision:
    inputs = replacement.inputs(module)
    op = BoundOp(replacement.op, current_policy()) if replacement.op else None
    with torch.no_grad():
        replacement.make(module, op or _no_operation)[0](module, *inputs)  # so that the operation chooses
    numerics = _loosest(replacement, op)
    required = required_implementation()
    reason = against_policy(required or "reference", numerics, required=required) or _cannot_be_required(replacement)
    if reason:
        return Decision(reason)
    forwards = replacement.make(module, op.bound() if op else _no_operation)
    trials = [compare(module, forward, inputs, numerics) for forward in forwards]
    best = min(range(len(trials)), key=lambda number: (trials[number].output.largest, trials[number].gradient.largest))
    if not trials[best].apart.agrees:
        return Decision(f"the new forward is another: {trials[best].apart}")
    gain = _gain(trials[best], op)
    if not gain and not _is_wanted_anyway():
        return Decision("plain torch would run either way, in as many calls")
    return Decision(gain or "as the policy asks", forwards[best], inputs)


def _gain(trial: Trial, op: BoundOp | None) -> str:
    others = {each.name for each in op.taken.values()} - {"reference"} if op else set[str]()
    if others:
        return f"{' and '.join(sorted(others))} runs"
    return f"{trial.calls} calls of torch instead of {trial.calls_before}" if trial.calls < trial.calls_before else ""


def _is_wanted_anyway() -> bool:
    return bool(required_implementation()) or current_policy().startswith("reference")


def _cannot_be_required(replacement: Replacement) -> str:
    required = required_implementation()
    known = {each.name for each in replacement.op.implementations} if replacement.op else set[str]()
    return f"it calls no operation that has {required}" if required and required not in known else ""


def _loosest(replacement: Replacement, op: BoundOp | None) -> Numerics:
    promised: list[Numerics] = [replacement.numerics, *(each.numerics for each in (op.taken.values() if op else ()))]
    return max(promised, key=lambda each: LIMITS[each])


def _no_operation(*args: object) -> torch.Tensor:
    raise AssertionError(f"a replacement without an operation called one, with {len(args)} arguments")
