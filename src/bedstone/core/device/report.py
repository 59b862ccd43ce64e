"""What is known about every candidate device, as plain values: a row each, and the report that holds them.

A row is what `get_device` decides by and what `bedstone doctor` prints, so the two cannot disagree. Whatever was not
read is `None`: nothing in a row is estimated or guessed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from bedstone.core.device.reasons import Reason

if TYPE_CHECKING:
    import torch

Verdict = Literal["usable", "unusable", "absent"]
"""`unusable`: something is there and cannot be used as things are. `absent`: nothing is there."""

EVIDENCE = (
    "Read from the PyTorch build, the environment, the driver's libraries, /dev, /proc and /sys. "
    "Nothing was guessed, and no device was initialised."
)
"""How a report came about, in two sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One candidate and the verdict on it.

    Attributes:
        backend: The backend that speaks, for example `cuda`.
        verdict: `usable`, `unusable` or `absent`.
        reason: Why, a full sentence.
        code: The same as a stable word, see `Reason`; `OK` for a usable device.
        remedy: What to do about it, a full sentence; empty when nothing needs doing.
        device: What `torch.device` takes, for example `cuda:0`; `None` when this process cannot address it.
        ordinal: The number in `device`; `None` when there is none.
        name: The product's name; empty when not read.
        uuid: The vendor's identifier of this piece of hardware.
        parent: For a MIG instance, the UUID of the GPU that it is a part of.
        pci_id: Where it sits, for example `0000:3b:00.0`.
        total_bytes: Memory of the device.
        free_bytes: Memory that was free when it was read.
        capability: CUDA compute capability (`9.0`) or AMD architecture (`gfx942`).
        driver: Version of the driver.
        runtime: What PyTorch was built for, for example `CUDA 13.0`.
        mask: The variable that limits what this process sees, as `NAME=value`.
        notes: More full sentences worth knowing.

    >>> row = DeviceRow(backend="cpu", verdict="usable", reason="The CPU is always there.", device="cpu")
    >>> row.usable, row.to_dict()["code"]
    (True, 'OK')
    """

    backend: str
    verdict: Verdict
    reason: str
    code: str = Reason.OK
    remedy: str = ""
    device: str | None = None
    ordinal: int | None = None
    name: str = ""
    uuid: str | None = None
    parent: str | None = None
    pci_id: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    capability: str | None = None
    driver: str | None = None
    runtime: str | None = None
    mask: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether nothing speaks against this device."""
        return self.verdict == "usable"

    def to_dict(self) -> dict[str, Any]:
        """Return every field as a JSON value."""
        return dataclasses.asdict(self) | {"code": str(self.code), "notes": list(self.notes)}

    def __str__(self) -> str:
        label = " ".join(filter(None, [self.device or self.backend, self.name and f"({self.name})"]))
        return " ".join(filter(None, [f"{label}: {self.verdict}, {self.code}.", self.reason, self.remedy, *self.notes]))


@dataclass(frozen=True, slots=True)
class DeviceReport(Sequence[DeviceRow]):
    """Every candidate in order of preference, the CPU last, and what a request comes to on this machine.

    Attributes:
        rows: The candidates; the report itself iterates, counts and indexes them.
        requested: What was asked for, for example `auto`.
        source: Where the request came from: `argument`, `default` or the name of an environment variable.
        selected: The device that `get_device` would return; `None` where it would raise.
        reason: Why that one, or why none, in full sentences.

    >>> from bedstone.core.device import device_report
    >>> report = device_report("cpu")
    >>> report.selected, report[-1].backend
    (device(type='cpu'), 'cpu')
    """

    rows: tuple[DeviceRow, ...]
    requested: str
    source: str
    selected: torch.device | None
    reason: str

    @overload
    def __getitem__(self, index: int) -> DeviceRow: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[DeviceRow, ...]: ...
    def __getitem__(self, index: int | slice) -> DeviceRow | tuple[DeviceRow, ...]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole report as JSON values; `selected` as text."""
        return {
            "requested": self.requested,
            "source": self.source,
            "selected": None if self.selected is None else str(self.selected),
            "reason": self.reason,
            "evidence": EVIDENCE,
            "rows": [row.to_dict() for row in self.rows],
        }

    def __str__(self) -> str:
        head = f"{self.requested} (from {self.source}) gives {self.selected or 'an error'}. {self.reason}"
        return "\n".join([head, *(f"  {row}" for row in self.rows), EVIDENCE])
