"""Replacing the forward of a model's modules, one instance at a time, and undoing it.

    handle = kernels.apply(model)
    print(handle.report())
    handle.undo()

Classes stay as they are, so other models, other libraries and the next thing that this process does see nothing of it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

from torch import nn

from bedstone.core.errors import InvalidConfigError, UnsupportedError
from bedstone.core.events import emit
from bedstone.kernels.modules.decide import decide
from bedstone.kernels.modules.forward import put, take_off
from bedstone.kernels.modules.known import known_replacements
from bedstone.kernels.modules.report import ApplyReport, KernelsApplied, ModuleReport
from bedstone.kernels.policies import checked_policy, current_policy

if TYPE_CHECKING:
    from types import MethodType

_applying = threading.Lock()


class Applied:
    """What `apply` did to a model; as a context manager it undoes it at the end of the block.

    Args:
        report: What was done.
        modules: The modules that were replaced, by their path.
    """

    def __init__(self, report: ApplyReport, modules: dict[str, nn.Module]) -> None:
        self._report = report
        self._forwards: dict[str, tuple[nn.Module, MethodType]] = {
            path: (module, vars(module)["forward"]) for path, module in modules.items()
        }

    def report(self) -> ApplyReport:
        """Return what was replaced and what was not, with reasons; stays the same after `undo`."""
        return self._report

    def undo(self) -> None:
        """Give each module the forward of its class back; a second time does nothing.

        Raises:
            UnsupportedError: Somebody has replaced the forward of a module once more. It stays, all others are restored; once theirs is taken
                off, call this again.
        """
        for path, (module, forward) in list(self._forwards.items()):
            there = vars(module).get("forward")
            if there is forward:
                take_off(module)
            if there is forward or there is None:
                del self._forwards[path]
        if self._forwards:
            raise _replaced_since(list(self._forwards))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        state = "applied" if self._forwards else "undone, or nothing to do"
        return f"<{state}>\n{self._report}"


def apply(model: nn.Module, policy: str = "auto") -> Applied:
    """Have modules of a model compute in fewer steps or by faster kernels, where that gives the same.

    Modules are recognised by what they hold, see `replacements`. Each is compared with its new forward on random inputs, results and gradients,
    before it is replaced. Weights, `state_dict` and classes stay as they are.

    Args:
        model: Any module; a part of a model too. Its weights lie where they will be used, in the dtype that they will be used in.
        policy: As for `kernels.policy`. It chooses the kernels of the replaced calls from now on; `auto` takes the one that holds now.
            `reference` and `require:<implementation>` also replace where nothing is won.

    Returns:
        A handle with `report()` and `undo()`; also a context manager.

    Raises:
        InvalidConfigError: `model` is no module, or the policy is none.
        UnknownNameError: The policy requires an implementation that no operation has.

    >>> class Norm(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight, self.eps = nn.Parameter(torch.rand(8)), 1e-6
    ...     def forward(self, x):
    ...         return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))
    >>> import torch
    >>> with apply(nn.Sequential(Norm(), nn.Linear(8, 8))) as handle:
    ...     print(handle.report())
    rms_norm: matched 1 of 1 (2 calls of torch instead of 6)
    """
    if not isinstance(model, nn.Module):
        message = f"`model` must be a torch.nn.Module, not {type(model).__name__}."
        raise InvalidConfigError(message, argument="model", value=type(model).__name__)
    checked_policy(policy, "policy")
    name = current_policy() if policy == "auto" else policy
    with _applying:
        report, replaced = _replaced(model, name)
    handle = Applied(report, replaced)
    emit(KernelsApplied(policy=name, matched=report.matched, found=report.found, report=str(report)))
    return handle


def _replaced(model: nn.Module, policy: str) -> tuple[ApplyReport, dict[str, nn.Module]]:
    known = known_replacements()
    rows: list[ModuleReport] = []
    decided: list[tuple[str, nn.Module, Any]] = []
    for path, module in model.named_modules():
        name = next((name for name, each in known.items() if each.recognises(module)), None)
        if name is not None:
            decision = decide(module, known[name], policy)
            rows.append(ModuleReport(path, name, decision.forward is not None, decision.reason))
            decided.append((path, module, decision))
    taken = [(path, module, decision) for path, module, decision in decided if decision.forward is not None]
    for _, module, decision in taken:  # only now, so that an error leaves the model as it was
        put(module, decision.forward, decision.inputs)
    return ApplyReport(policy, tuple(rows)), {path: module for path, module, _ in taken}


def _replaced_since(paths: list[str]) -> UnsupportedError:
    message = f"The forward of {len(paths)} modules was replaced once more since: {', '.join(paths[:4])}."
    remedy = "It stays; all others are restored. Take it off, then call undo() again."
    return UnsupportedError(message, feature="undo", remedy=remedy, modules=tuple(paths))
