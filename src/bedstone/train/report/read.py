"""The files of a run folder, read with suspicion: a run may be young, may have been killed, may have been edited.

Only `events.jsonl` must exist. A line that is not a JSON object is counted and left out, and a last line without its
line break is what a kill leaves behind. Nothing in a file is trusted to have the right type: `Record` answers `None`.
"""

from __future__ import annotations

import errno
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

_FAR_FUTURE = 1e11  # the year 5138


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the event file, with typed access to fields that may be absent or wrong.

    Args:
        fields: The JSON object.
        at_s: Seconds of work since the run began, pauses between its stretches left out.

    >>> record = Record({"event": "training_step", "step": 3, "loss": float("nan"), "lr": "high"})
    >>> record.name, record.whole("step"), record.number("loss"), record.number("lr"), record.text("device")
    ('training_step', 3, nan, None, '')
    """

    fields: dict[str, Any]
    at_s: float = 0.0

    @property
    def name(self) -> str:
        """The event's name, for example `training_step`."""
        return self.text("event")

    @property
    def step(self) -> int:
        """The step it belongs to; 0 when it names none."""
        return self.whole("step") or 0

    @property
    def time(self) -> float | None:
        """Seconds since the epoch, or `None` when it is absent or no time of our days."""
        value = self.number("time")
        return value if value is not None and 0 <= value < _FAR_FUTURE else None

    def number(self, field: str) -> float | None:
        """Return a number, which may be NaN or infinite, or `None`."""
        value = self.fields.get(field)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf

    def whole(self, field: str) -> int | None:
        """Return a whole number of at least 0 that a float holds exactly, or `None`."""
        value = self.number(field)
        return int(value) if value is not None and 0 <= value < 2**53 and value == int(value) else None

    def text(self, field: str) -> str:
        """Return a value as text; empty when absent."""
        value = self.fields.get(field)
        return "" if value is None else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """What lies in a run folder.

    Attributes:
        name: The folder's own name.
        records: The events in the order of the file.
        unreadable: Lines inside the event file that are not JSON objects.
        torn: Whether the last line was cut off.
        config: The text of `config.yaml`, or `None`.
        manifest: The object in `manifest.json`, or `None`.
        manifest_problem: Why there is no manifest, a full sentence, or empty.
    """

    name: str
    records: tuple[Record, ...]
    unreadable: int = 0
    torn: bool = False
    config: str | None = None
    manifest: dict[str, Any] | None = None
    manifest_problem: str = ""


def read_run(folder: Path) -> RunFiles:
    """Read the files of a run folder.

    Args:
        folder: The folder that `bedstone train` wrote.

    Raises:
        StorageError: The folder or its `events.jsonl` does not exist or cannot be read, or `config.yaml` or
            `manifest.json` exists and cannot be read.
    """
    if not folder.is_dir():
        remedy = "Give the folder that `bedstone train` printed, for example runs/demo."
        raise StorageError(f"There is no run folder at {folder}.", path=folder, errno=errno.ENOENT, remedy=remedy)
    records, unreadable, torn = _read_events(folder / "events.jsonl")
    manifest, problem = _read_manifest(folder / "manifest.json")
    return RunFiles(
        name=folder.resolve().name,
        records=records,
        unreadable=unreadable,
        torn=torn,
        config=_read_text(folder / "config.yaml"),
        manifest=manifest,
        manifest_problem=problem,
    )


def _read_text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError.from_os_error(error, path=path, doing=f"read the run's {path.name}") from error


def _read_events(path: Path) -> tuple[tuple[Record, ...], int, bool]:
    text = _read_text(path)
    if text is None:
        remedy = "Give the folder of a run; it holds this file from its first second on."
        message = f"The run folder {path.parent} has no {path.name}."
        raise StorageError(message, path=path, errno=errno.ENOENT, remedy=remedy)
    # Not splitlines(): JSON may hold U+2028 and others that Python takes for line ends.
    *lines, last = text.split("\n")
    parsed = [_parse(line) for line in lines if line.strip()]
    tail = _parse(last)  # whole when only its line break is missing
    records = [record for record in (*parsed, tail) if record is not None]
    return tuple(records), parsed.count(None), bool(last.strip()) and tail is None


def _parse(line: str) -> Record | None:
    value = _json_or_none(line)
    return Record(value) if isinstance(value, dict) else None


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not JSON, a number of thousands of digits, or nested beyond reason
        return None


def _read_manifest(path: Path) -> tuple[dict[str, Any] | None, str]:
    text = _read_text(path)
    if text is None:
        return None, f"The run folder has no {path.name}."
    value = _json_or_none(text)
    return (value, "") if isinstance(value, dict) else (None, f"The file {path.name} does not hold a JSON object.")
