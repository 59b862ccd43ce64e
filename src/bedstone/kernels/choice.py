"""What was chosen for a specification, and why; and the event of a choice that nobody would want."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bedstone.core.events import Event, emit

if TYPE_CHECKING:
    from bedstone.kernels.implementation import KernelSpec, Numerics


@dataclass(frozen=True)
class KernelChoice:
    """What was chosen for a specification, and why not the others.

    Attributes:
        op: The operation.
        spec: What it was chosen for.
        name: Of the chosen implementation.
        numerics: Its numerics.
        rejected: Name and reason of each implementation that would have come before it.
        wanted: Name of the one that would be taken if this machine had what it lacks; empty when it lacks nothing.
        absent: Why the device itself cannot be had here; only `explain` looks.
    """

    op: str
    spec: KernelSpec
    name: str
    numerics: Numerics
    rejected: tuple[tuple[str, str], ...]
    wanted: str = ""
    absent: str = ""

    def __str__(self) -> str:
        lines = [f"{self.op} on {self.spec}: {self.name} ({self.numerics})"]
        lines += [f"  not {name}: {reason}" for name, reason in self.rejected]
        if self.wanted:
            lines.append(f"With what is missing here, {self.wanted} would be taken.")
        if self.absent:
            lines.append(f"This is for a machine with {self.spec.device}, and here is none: {self.absent}")
        return "\n".join(lines)


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


_told: set[str] = set()


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
