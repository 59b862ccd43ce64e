"""From rows to a device: a pure decision, so that every case is a test without hardware.

Explicit means that device or an error; `auto` means the first usable candidate, else the CPU and a cause.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bedstone.core.device.reasons import Reason
from bedstone.core.errors import DeviceNotAvailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bedstone.core.device.config import DeviceConfig
    from bedstone.core.device.report import DeviceRow


@dataclass(frozen=True, slots=True)
class Choice:
    """What was decided.

    Attributes:
        device: What `torch.device` takes.
        reason: Why, in a full sentence.
        cause: The row that explains why no accelerator was taken, when `auto` fell back to the CPU.
    """

    device: str
    reason: str
    cause: DeviceRow | None = None


def choose(config: DeviceConfig, rows: Sequence[DeviceRow]) -> Choice:
    """Return the device that a wish comes to.

    Args:
        config: The wish.
        rows: The candidates without the CPU: of every backend for `auto`, of the one asked for otherwise.

    Raises:
        DeviceNotAvailableError: The wish is explicit and cannot be met; carries reason code, count and mask.

    >>> from bedstone.core.device import DeviceConfig, DeviceRow
    >>> busy = DeviceRow(backend="cuda", verdict="unusable", code="EXCLUSIVE_PROCESS_BUSY", reason="Another has it.")
    >>> choose(DeviceConfig("auto"), [busy]).cause.code
    'EXCLUSIVE_PROCESS_BUSY'
    >>> choose(DeviceConfig("cuda"), [busy])
    Traceback (most recent call last):
    bedstone.core.errors.DeviceNotAvailableError: The device 'cuda' (from argument) is not available: Another has it.
    """
    if config.device == "cpu":
        return Choice("cpu", f"The CPU was chosen (from {config.source}).")
    judged = [_with_minimum(row, config.min_free_bytes) for row in rows]
    usable = next((row for row in judged if row.usable), None)
    if config.device == "auto":
        return _taken(usable) if usable else _fallen_back(judged)
    row = _selected(config, judged) if config.selector else usable or _main_cause(judged)
    if not row.usable:
        raise _unavailable(config, judged, row)
    return _taken(row)


def _taken(row: DeviceRow) -> Choice:
    assert row.device is not None, "a usable row names its device"
    named = f" ({row.name})" if row.name else ""
    return Choice(row.device, f"{row.device}{named} can be used. {row.reason}")


def _fallen_back(rows: Sequence[DeviceRow]) -> Choice:
    cause = _main_cause(rows)
    return Choice("cpu", f"No accelerator can be used. {cause.reason}", cause)


def _main_cause(rows: Sequence[DeviceRow]) -> DeviceRow:
    """What is there but fails says more than what is not there; the order of the backends decides between equals."""
    return min(rows, key=lambda row: (row.verdict != "unusable", row.code == Reason.NO_DEVICE))


def _with_minimum(row: DeviceRow, min_free_bytes: int) -> DeviceRow:
    if not row.usable or row.free_bytes is None or row.free_bytes >= min_free_bytes:
        return row
    reason = f"{row.free_bytes:,} bytes are free; `min_free_bytes` asks for {min_free_bytes:,}."
    remedy = "End what else runs there, take another device, or ask for less."
    return replace(row, verdict="unusable", code=Reason.OUT_OF_FREE_MEMORY, reason=reason, remedy=remedy)


def _selected(config: DeviceConfig, rows: Sequence[DeviceRow]) -> DeviceRow:
    wanted = config.selector
    if wanted.isdigit():
        found = [row for row in rows if row.ordinal == int(wanted)]
    else:
        found = [row for row in rows if (row.uuid or "").lower().startswith(wanted.lower())]
    if len(found) == 1:
        return found[0]
    addressable = [row for row in rows if row.device is not None]
    known = addressable if wanted.isdigit() else [row for row in rows if row.uuid]
    if not known:  # what keeps every device away is the answer, not the number
        return _main_cause(rows)
    return _not_found(config, rows[0], addressable, rows, ambiguous=bool(found))


def _not_found(
    config: DeviceConfig,
    row: DeviceRow,
    addressable: Sequence[DeviceRow],
    rows: Sequence[DeviceRow],
    *,
    ambiguous: bool,
) -> DeviceRow:
    seen = ", ".join(row.device or "" for row in addressable)
    uuids = ", ".join(row.uuid for row in rows if row.uuid)
    if config.selector.isdigit():
        code, reason = (
            Reason.NO_SUCH_ORDINAL,
            f"This process sees {len(addressable)} {config.backend} device(s): {seen}.",
        )
        remedy = f"Use a number below {len(addressable)}."
    else:
        code = Reason.MIG_UUID_UNKNOWN if config.selector.startswith("MIG-") else Reason.NO_SUCH_UUID
        reason = f"{'Several UUIDs begin' if ambiguous else 'No UUID begins'} with {config.selector!r}; known: {uuids}."
        remedy = "Give one of these UUIDs, or enough of it to be unique."
    return replace(row, verdict="unusable", code=code, reason=reason, remedy=remedy)


def _unavailable(config: DeviceConfig, rows: Sequence[DeviceRow], row: DeviceRow) -> DeviceNotAvailableError:
    mask = f" The environment has {row.mask}." if row.mask and row.mask not in row.reason else ""
    return DeviceNotAvailableError(
        f"The device {config.device!r} (from {config.source}) is not available: {row.reason}{mask}",
        device=config.device,
        reason=str(row.code),
        remedy=row.remedy,
        count=sum(other.device is not None for other in rows),
        mask=row.mask,
        source=config.source,
    )
