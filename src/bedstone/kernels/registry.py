"""Which implementation of an operation runs, and why not another one.

An operation has implementations, best first, the last of them plain torch (`reference`), which runs everywhere. Each says of a
`KernelSpec` in one sentence why it cannot take it, or nothing. The first that can is taken; the choice is kept for the specification.

    policy       takes
    auto         the first that can
    exact        the first that can whose numerics are `exact`
    reference    plain torch
    require:X    the implementation X, or an error that says why it cannot

The policy is that of `policy(...)`, else of the variable `BEDSTONE_KERNELS`, else `auto`.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch

from bedstone.core.errors import InvalidConfigError, KernelError, UnknownNameError
from bedstone.core.events import Event, emit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

Numerics = Literal["exact", "rounded", "approximate"]
"""`exact`: products with the dequantized weight in float32 or wider, 1e-6, or of bfloat16 inputs as a dense layer of bfloat16 computes.
`rounded`: 2e-4. `approximate`: by name only."""

VARIABLE = "BEDSTONE_KERNELS"
_KEPT_CHOICES = 4096  # specifications of one operation whose choice is kept


class KernelSpec(NamedTuple):
    """What a choice depends on.

    Attributes:
        device: Type of the device, such as `cpu` or `cuda`.
        dtype: Of the input; of what comes out where only a weight goes in.
        inputs: Rows of x (M); 0 where only a weight goes in.
        rows: Rows of the weight (N).
        columns: Columns of the weight (K).
    """

    device: str
    dtype: torch.dtype
    inputs: int
    rows: int
    columns: int


@dataclass(frozen=True)
class KernelImpl:
    """One implementation of an operation.

    Attributes:
        name: Such as `native` or `reference`.
        call: Takes the operation's arguments, gives its result.
        workspace: Of the same arguments: the bytes it needs besides them and the result.
        unfit: Of a specification: why it cannot take it, in a sentence; empty when it can.
        numerics: How exact it is.
        deterministic: Whether the same inputs give the same bits.
    """

    name: str
    call: Callable[..., Any]
    workspace: Callable[..., int]
    unfit: Callable[[KernelSpec], str] = lambda spec: ""  # noqa: ARG005 - plain torch takes everything
    numerics: Numerics = "exact"
    deterministic: bool = True


@dataclass(frozen=True)
class KernelChoice:
    """What was chosen for a specification, and why not the others.

    Attributes:
        op: The operation.
        spec: What it was chosen for.
        name: Of the chosen implementation.
        numerics: Its numerics.
        rejected: Name and reason of each implementation that would have come before it.
    """

    op: str
    spec: KernelSpec
    name: str
    numerics: Numerics
    rejected: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        size = "x".join(str(value) for value in (self.spec.inputs, self.spec.rows, self.spec.columns) if value)
        lines = [f"{self.op} on {self.spec.device}, {self.spec.dtype}, {size}: {self.name} ({self.numerics})"]
        return "\n".join([*lines, *(f"  not {name}: {reason}" for name, reason in self.rejected)])


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFallback(Event):
    """Operations take plain torch because what would be faster is not installed; told once for each reason.

    Attributes:
        implementation: What is missing.
        reason: Why.
        remedy: What to do about it.
    """

    name: ClassVar[str] = "kernel_fallback"
    level: ClassVar[int] = logging.WARNING
    implementation: str
    reason: str
    remedy: str

    def message(self) -> str:
        """Say it in a sentence."""
        return f"Packed weights are computed in plain torch, not by {self.implementation}. {self.reason} {self.remedy}"


class KernelOp:
    """An operation with its implementations, best first; calling it runs the one chosen for the arguments.

    Args:
        name: Of the operation.
        describe: Of the operation's arguments, their specification.
        implementations: Best first; the last one takes everything.
    """

    def __init__(self, name: str, describe: Callable[..., KernelSpec], *implementations: KernelImpl) -> None:
        self.name = name
        self.describe = describe
        self.implementations = implementations
        self._chosen: dict[KernelSpec, KernelImpl] = {}
        operations[name] = self

    def __call__(self, *args: Any) -> Any:
        """Run the chosen implementation."""
        spec = self.describe(*args)
        chosen = self._chosen.get(spec) or self._choose(spec)
        return chosen.call(*args)

    def workspace(self, *args: Any) -> int:
        """Return what the chosen implementation needs."""
        spec = self.describe(*args)
        return (self._chosen.get(spec) or self._choose(spec)).workspace(*args)

    def choice(self, spec: KernelSpec) -> KernelChoice:
        """Return what is chosen for a specification, with the reasons.

        Args:
            spec: Any; nothing runs.

        Raises:
            KernelError: The policy requires an implementation that cannot.
        """
        wanted = current_policy()
        required = wanted.removeprefix("require:") if wanted.startswith("require:") else ""
        rejected: list[tuple[str, str]] = []
        for each in self.implementations:
            reason = _by_policy(wanted, required, each) or each.unfit(spec)
            if not reason:
                return KernelChoice(self.name, spec, each.name, each.numerics, tuple(rejected))
            rejected.append((each.name, reason))
        raise self._impossible(required, spec, rejected)

    def forget(self) -> None:
        """Choose anew from now on."""
        self._chosen.clear()

    def _choose(self, spec: KernelSpec) -> KernelImpl:
        choice = self.choice(spec)
        chosen = next(each for each in self.implementations if each.name == choice.name)
        if len(self._chosen) >= _KEPT_CHOICES:
            self._chosen.clear()
        self._chosen[spec] = chosen
        return chosen

    def _impossible(self, required: str, spec: KernelSpec, rejected: list[tuple[str, str]]) -> KernelError:
        known = ", ".join(each.name for each in self.implementations)
        why = next((reason for name, reason in rejected if name == required), f"it has none of that name, only {known}")
        message = f"{self.name} cannot take the required implementation {required!r}: {why}."
        remedy = "Use the policy `auto`, or see `kernels.explain`."
        shapes = [(spec.inputs, spec.columns), (spec.rows, spec.columns)]
        return KernelError(message, op=self.name, implementation=required, shapes=shapes, remedy=remedy)


operations: dict[str, KernelOp] = {}
"""Every operation by name."""

_policy = ""
_told: set[str] = set()


def current_policy() -> str:
    """Return the policy that holds now.

    Raises:
        InvalidConfigError: `BEDSTONE_KERNELS` is none.
    """
    return _policy or _checked(os.environ.get(VARIABLE, "auto"), VARIABLE)


@contextmanager
def policy(name: str) -> Generator[None]:
    """Choose implementations by another policy within a `with` block; for all threads.

    Args:
        name: `auto`, `exact`, `reference` or `require:<implementation>`.

    Raises:
        InvalidConfigError: It is none of these.

    >>> with policy("reference"):
    ...     current_policy()
    'reference'
    """
    global _policy  # noqa: PLW0603 - one policy a process
    before, _policy = _policy, _checked(name, "policy")
    _forget_all()
    try:
        yield
    finally:
        _policy = before
        _forget_all()


def explain(
    op: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (1, 4096, 4096)
) -> KernelChoice:
    """Return what would be chosen and why not the others; prints as a few lines. Nothing runs.

    Args:
        op: Such as `linear_4bit`; `operations` has them all.
        device: Type of a device; it need not be here.
        dtype: Of the input, or of the dense result.
        shape: `(M, N, K)` of a product, `(N, K)` where only a weight goes in.

    Raises:
        UnknownNameError: The operation.

    >>> explain("linear_4bit", device="cuda", shape=(1, 64, 64)).name
    'reference'
    """
    if op not in operations:
        raise UnknownNameError("operation", op, operations)
    inputs, rows, columns = (0, *shape) if len(shape) == 2 else shape  # noqa: PLR2004 - a matrix
    return operations[op].choice(KernelSpec(device, dtype, inputs, rows, columns))


def select(op: str, *args: Any) -> KernelChoice:
    """Return what is chosen for arguments of an operation, and why not the others. Nothing runs.

    Args:
        op: Such as `linear_4bit`.
        args: Its arguments.

    Raises:
        UnknownNameError: The operation.
        KernelError: The policy requires an implementation that cannot.
    """
    if op not in operations:
        raise UnknownNameError("operation", op, operations)
    return operations[op].choice(operations[op].describe(*args))


def tell_fallback(implementation: str, reason: str, remedy: str) -> None:
    """Emit `KernelFallback`, once a reason.

    Args:
        implementation: What is missing.
        reason: Why.
        remedy: What to do about it.
    """
    if reason not in _told:
        _told.add(reason)
        emit(KernelFallback(implementation=implementation, reason=reason, remedy=remedy))


def _by_policy(wanted: str, required: str, each: KernelImpl) -> str:
    if wanted == "reference" and each.name != "reference":
        return "the policy is `reference`"
    if wanted == "exact" and each.numerics != "exact":
        return f"the policy is `exact`, and it is {each.numerics}"
    if required and each.name != required:
        return f"the policy requires {required}"
    if each.numerics == "approximate" and not required:
        return "it is approximate, and so taken by name only"
    return ""


def _checked(name: str, argument: str) -> str:
    if name in ("auto", "exact", "reference") or name.startswith("require:"):
        return name
    message = f"`{argument}` (={name!r}) must be auto, exact, reference or require:<implementation>."
    raise InvalidConfigError(message, argument=argument, value=name)


def _forget_all() -> None:
    for each in operations.values():
        each.forget()
