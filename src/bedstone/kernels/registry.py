"""Which implementation of an operation runs, and why not another one.

An operation has implementations, best first, the last of them plain torch (`reference`), which runs everywhere. Each says of a
`KernelSpec` in one sentence why it cannot take it, or nothing. Of those that can the policy (`policies.py`) takes one, the choice is kept for
the specification. Implementations of other packages come before ours: an entry point in `bedstone.kernels` names a `KernelExtension`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch

from bedstone.core.errors import CoreError, KernelError, UnknownNameError
from bedstone.core.events import Event, emit
from bedstone.core.registry import Registry
from bedstone.kernels.policies import against_policy, changed, required_implementation

if TYPE_CHECKING:
    from collections.abc import Callable

Numerics = Literal["exact", "rounded", "approximate"]
"""`exact`: products with the dequantized weight in float32 or wider, 1e-6, or of bfloat16 inputs as a dense layer of bfloat16 computes.
`rounded`: 2e-4. `approximate`: by name only."""

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
class KernelExtension:
    """An implementation that another package adds to an operation.

    Attributes:
        op: The operation, such as `linear_4bit`.
        implementation: Its name must differ from those that the operation has.
    """

    op: str
    implementation: KernelImpl


extensions: Registry[KernelExtension] = Registry("kernel", "bedstone.kernels")
"""What other packages add, by the name of the entry point; `extensions.add` does it by hand, and `forget_choices` lets it be seen."""


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
        self._own = implementations
        self._chosen: dict[KernelSpec, KernelImpl] = {}
        operations[name] = self

    @property
    def implementations(self) -> tuple[KernelImpl, ...]:
        """All of them, those of other packages first."""
        added = (extensions.get(name) for name in extensions.names())
        return (*(each.implementation for each in added if each.op == self.name), *self._own)

    @property
    def reference(self) -> KernelImpl:
        """The one in plain torch."""
        return self._own[-1]

    def __call__(self, *args: Any) -> Any:
        """Run the chosen implementation.

        Raises:
            KernelError: It failed; nothing else was tried.
        """
        spec = self.describe(*args)
        chosen = self._chosen.get(spec) or self._choose(spec)
        try:
            return chosen.call(*args)
        except (CoreError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if chosen is self.reference:
                raise
            raise self._failed(chosen, args, error) from error

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
        return self._decided(spec)[0]

    def forget(self) -> None:
        """Choose anew from now on."""
        self._chosen.clear()

    def _choose(self, spec: KernelSpec) -> KernelImpl:
        chosen = self._decided(spec)[1]
        if len(self._chosen) >= _KEPT_CHOICES:
            self._chosen.clear()
        self._chosen[spec] = chosen
        return chosen

    def _decided(self, spec: KernelSpec) -> tuple[KernelChoice, KernelImpl]:
        implementations = self.implementations
        required = self._required(implementations)
        rejected: list[tuple[str, str]] = []
        for each in implementations:
            reason = against_policy(each.name, each.numerics, required=required) or each.unfit(spec)
            if not reason:
                return KernelChoice(self.name, spec, each.name, each.numerics, tuple(rejected)), each
            rejected.append((each.name, reason))
        why = dict(rejected)[required]
        message = f"{self.name} cannot take the required implementation {required!r}: {why}."
        shapes = [(spec.inputs, spec.columns), (spec.rows, spec.columns)]
        remedy = "Use the policy `auto`, or see `kernels.explain`."
        raise KernelError(message, op=self.name, implementation=required, shapes=shapes, remedy=remedy)

    def _required(self, implementations: tuple[KernelImpl, ...]) -> str:
        """The implementation that must be taken; an operation that has none of that name is free, unless nobody has."""
        required = required_implementation()
        if not required or any(each.name == required for each in implementations):
            return required
        known = {each.name for op in operations.values() for each in op.implementations}
        if required not in known:
            raise UnknownNameError("implementation", required, known, remedy="Change the policy.")
        return ""

    def _failed(self, chosen: KernelImpl, args: tuple[Any, ...], error: Exception) -> KernelError:
        shapes = [tuple(value.shape) for value in args if isinstance(value, torch.Tensor)]
        message = f"{self.name} failed in its implementation {chosen.name!r}: {type(error).__name__}: {error}"
        remedy = 'Plain torch computes it too: `kernels.policy("reference")`, or BEDSTONE_KERNELS=reference.'
        return KernelError(message, op=self.name, implementation=chosen.name, shapes=shapes, remedy=remedy)


operations: dict[str, KernelOp] = {}
"""Every operation by name."""

_told: set[str] = set()


def forget_choices() -> None:
    """Choose anew from now on, in every operation."""
    for each in operations.values():
        each.forget()


changed.append(forget_choices)


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
