"""A log record as a line: text for people, JSON for programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

from bedstone.core.json import json_line
from bedstone.core.logging.config import LEVELS

if TYPE_CHECKING:
    from bedstone.core.logging.config import LogConfig

_LABELS = {number: name for name, number in LEVELS.items() if name != "warning"} | {logging.CRITICAL: "critical"}
_COLOURS = {"critical": "1;31", "error": "31", "warn": "33", "info": "32", "debug": "36", "trace": "2"}


class TextFormatter(logging.Formatter):
    """Lines for people: time, level, logger, place and message, as the configuration says."""

    def __init__(self, config: LogConfig, *, coloured: bool = False) -> None:
        super().__init__()
        self._config = config
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text; an exception follows on lines of its own."""
        config, label = self._config, _label(record.levelno)
        level = f"{label.upper():<5}"
        parts = [_iso(record.created)] if config.timestamps else []
        parts += [f"\x1b[{_COLOURS[label]}m{level}\x1b[0m" if self._coloured and label in _COLOURS else level]
        parts += [record.name] if config.target else []
        parts += [f"{record.filename}:{record.lineno}"] if config.location else []
        lines = [" ".join([*parts, record.getMessage()])]
        lines += [self.formatException(record.exc_info)] if record.exc_info else []
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the fields of the event with numbers as numbers.

    A number that JSON lacks becomes the text `NaN`, `Infinity` or `-Infinity`; a field of an event that has the name of
    one of ours is called `event_<name>`.

    >>> record = logging.makeLogRecord({"name": "bedstone", "levelno": 20, "msg": "step 1", "created": 0.0})
    >>> record.event = {"event": "training_step", "step": 1, "loss": 2.5}
    >>> print(JsonFormatter().format(record)[:80])
    {"time": "1970-01-01T00:00:00.000Z", "level": "info", "logger": "bedstone", "mes
    """

    def __init__(self, *, location: bool = False) -> None:
        super().__init__()
        self._location = location

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, Any] = {
            "time": _iso(record.created),
            "level": _label(record.levelno),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._location:
            line["location"] = f"{record.filename}:{record.lineno}"
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        event = getattr(record, "event", {})
        if not isinstance(event, Mapping):  # a host application may have an `event` of its own
            event = {"event": event}
        for name, value in cast("Mapping[str, Any]", event).items():
            # The event's own time is the record's to the microsecond, so it is not repeated.
            if name != "time":
                line[f"event_{name}" if name in line else name] = value
        return json_line(line)


def _label(level: int) -> str:
    return _LABELS.get(level, f"level {level}")


def _iso(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, tz=timezone.utc)  # noqa: UP017 - reads the same on every version
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
