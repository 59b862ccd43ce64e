"""What was replaced in a model and what was not, with the reason for each module."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from bedstone.core.events import Event


@dataclass(frozen=True)
class ModuleReport:
    """One module that a replacement recognised.

    Attributes:
        module: Its path in the model; empty for the model itself.
        replacement: The name of the replacement.
        replaced: Whether its forward was replaced.
        reason: Why it was, or was not.
    """

    module: str
    replacement: str
    replaced: bool
    reason: str


@dataclass(frozen=True)
class ApplyReport:
    """What `apply` did; prints as a line for each kind of module.

    Attributes:
        policy: That chose, and that the replaced calls keep.
        modules: Every module that was recognised.

    >>> taken = ModuleReport("norm", "rms_norm", True, "2 calls of torch instead of 8")
    >>> left = ModuleReport("head.norm", "rms_norm", False, "its weights are on meta")
    >>> print(ApplyReport("auto", (taken, left)))
    rms_norm: matched 1 of 2 (2 calls of torch instead of 8); 1 skipped: its weights are on meta
    """

    policy: str
    modules: tuple[ModuleReport, ...]

    def of(self, replacement: str) -> tuple[ModuleReport, ...]:
        """Return the modules of one kind."""
        return tuple(each for each in self.modules if each.replacement == replacement)

    @property
    def matched(self) -> dict[str, int]:
        """How many modules were replaced, by kind."""
        return {name: sum(each.replaced for each in self.of(name)) for name in self._kinds()}

    @property
    def found(self) -> dict[str, int]:
        """How many modules there are, by kind."""
        return {name: len(self.of(name)) for name in self._kinds()}

    def __str__(self) -> str:
        if not self.modules:
            return "no module that a replacement is known for"
        return "\n".join(self._line(name) for name in self._kinds())

    def _kinds(self) -> list[str]:
        return list(dict.fromkeys(each.replacement for each in self.modules))

    def _line(self, name: str) -> str:
        reasons = {done: Counter(m.reason for m in self.of(name) if m.replaced is done) for done in (True, False)}
        why = f" ({', '.join(reasons[True])})" if reasons[True] else ""
        skipped = "".join(f"; {count} skipped: {reason}" for reason, count in reasons[False].items())
        return f"{name}: matched {self.matched[name]} of {self.found[name]}{why}{skipped}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelsApplied(Event):
    """Modules of a model compute by another forward.

    Attributes:
        policy: That chose.
        matched: How many modules were replaced, by kind.
        found: How many modules there are, by kind.
        report: The same in words, with the reasons.
    """

    name: ClassVar[str] = "kernels_applied"
    policy: str
    matched: dict[str, int]
    found: dict[str, int]
    report: str

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return f"Kernels applied by the policy `{self.policy}`. {self.report.replace(chr(10), '. ')}."
