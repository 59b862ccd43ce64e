"""What `bedstone doctor` finds, one record a line; checks return these and print nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Status = Literal["ok", "look", "bad"]
"""`ok`: as it should be. `look`: works, but somebody may want it otherwise. `bad`: broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was checked.

    Attributes:
        topic: The heading it stands under, for example `devices`.
        subject: What was checked, for example `cuda:0`.
        status: How it stands.
        text: What was found, in words.
        remedy: What to do about it; empty when nothing needs doing.
        details: Lines for whoever mends it, for example a traceback.

    >>> Finding(topic="versions", subject="python", status="ok", text="3.11.7").to_dict()["status"]
    'ok'
    """

    topic: str
    subject: str
    status: Status
    text: str
    remedy: str = ""
    details: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return every field by name."""
        return dataclasses.asdict(self)


def worst(findings: Iterable[Finding]) -> Status:
    """Return the worst status among `findings`, `ok` when there are none.

    >>> worst([Finding(topic="t", subject="a", status="look", text="x")])
    'look'
    """
    found = {finding.status for finding in findings}
    return "bad" if "bad" in found else "look" if "look" in found else "ok"
