"""What bedstone says while it works, shown through the standard `logging` and never in the way of the host application.

Everything bedstone logs goes to the logger `bedstone` or one below it, so one switch shows or hides all of it.
`init_logging` gives that logger one handler and a level; the root logger, other loggers and other people's handlers are
left alone. Libraries should not call it; programs may, before or after they configure logging of their own, and again.

A preset is a classmethod of `LogConfig`; a new one goes beside the four:

    preset         level    timestamps  target  location  colour  form
    default()      info     yes         yes     no        yes     text
    development()  debug    yes         yes     yes       yes     text
    production()   info     yes         no      no        no      JSON lines
    testing()      warn     no          no      no        no      text

The variable `BEDSTONE_LOG_LEVEL` wins over the level of the configuration.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TextIO, cast

from bedstone.core.errors import InvalidConfigError, Problem, nearest
from bedstone.core.events import MemoryUsage, Metric, TrainingStep, emit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import SupportsFloat

TRACE = 5
"""The level below DEBUG, for what happens many times a step."""

LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}
"""Every accepted name of a level, with its number in `logging`; `warning` is Python's word for `warn`."""

LEVEL_VARIABLE = "BEDSTONE_LOG_LEVEL"

_LABELS = {number: name for name, number in LEVELS.items() if name != "warning"} | {logging.CRITICAL: "critical"}
_COLOURS = {"critical": "1;31", "error": "31", "warn": "33", "info": "32", "debug": "36", "trace": "2"}
_RESERVED = ("event", "time")

_logger = logging.getLogger("bedstone")
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class LogConfig:
    """How log lines look and which are shown; cannot exist with a bad value.

    Args:
        level: The least severe level shown: `error`, `warn`, `info`, `debug` or `trace`.
        timestamps: Whether a text line starts with the time, ISO 8601 in UTC. A JSON line always has it.
        target: Whether a text line names its logger. A JSON line always does.
        location: Whether a line names the `file:line` that logged it.
        color: Whether the level is coloured on a terminal. `NO_COLOR` turns colour off, `FORCE_COLOR` turns it on for
            pipes too; JSON lines have none.
        json: Whether each line is one JSON object, with the fields of an event as its own and numbers as numbers.
        propagate: Whether records also go up to the handlers of the host application, as is usual. When the host prints
            its own lines, a record then shows twice; `False` keeps it to bedstone's handler.

    Raises:
        InvalidConfigError: A level that is not known, or a switch that is not a bool; all of them are listed.

    >>> LogConfig.testing().level
    'warn'
    >>> LogConfig(level="inof")
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: `level` (='inof') must be one of error, warn, info, debug, trace. Did you mean 'info'?
    """

    level: str = "info"
    timestamps: bool = True
    target: bool = True
    location: bool = False
    color: bool = True
    json: bool = False
    propagate: bool = True

    @classmethod
    def default(cls) -> LogConfig:
        """Return the preset for a program that people watch."""
        return cls()

    @classmethod
    def development(cls) -> LogConfig:
        """Return the preset for working on code: debug level, and where each line comes from."""
        return cls(level="debug", location=True)

    @classmethod
    def production(cls) -> LogConfig:
        """Return the preset for log collectors: one JSON object a line."""
        return cls(target=False, color=False, json=True)

    @classmethod
    def testing(cls) -> LogConfig:
        """Return the preset for test runs: warnings and errors, the same text each time."""
        return cls(level="warn", timestamps=False, target=False, color=False)

    def __post_init__(self) -> None:
        # By hand, since `ValidatableConfig` stands above logging.
        if found := tuple(self._problems()):
            raise InvalidConfigError(problems=found)

    def _problems(self) -> Iterator[Problem]:
        if self.level not in tuple(LEVELS):  # a tuple, so that an unhashable level is reported too
            yield Problem("level", _bad_level(self.level), self.level)
        for switch in fields(self)[1:]:
            value = getattr(self, switch.name)
            if not isinstance(value, bool):
                yield Problem(switch.name, f"(={value!r}) must be True or False.", value)


def _bad_level(level: object) -> str:
    guess = nearest(str(level), LEVELS)
    hint = f" Did you mean {guess!r}?" if guess else ""
    return f"(={level!r}) must be one of {', '.join(name for name in LEVELS if name != 'warning')}.{hint}"


def init_logging(config: LogConfig | None = None, *, stream: TextIO | None = None) -> None:
    """Show bedstone's log lines; call it again to change how.

    Only the logger `bedstone` is touched: its level, its `propagate`, and one handler of ours.

    Args:
        config: What to show and how; `LogConfig.default()` when left out.
        stream: Where to; when left out, whatever `sys.stderr` is at the moment of writing.

    Raises:
        InvalidConfigError: `BEDSTONE_LOG_LEVEL` is set to something that is no level. Nothing was changed then.

    >>> import io, logging
    >>> lines = io.StringIO()
    >>> init_logging(LogConfig.testing(), stream=lines)
    >>> logging.getLogger("bedstone.mine").warning("the well is %s", "dry")
    >>> print(lines.getvalue())
    WARN  the well is dry
    <BLANKLINE>
    """
    config = config or LogConfig.default()
    level = _level_from_environment() or LEVELS[config.level]
    with _lock:
        # One handler for good, changed in place: no record is lost or shown twice while another thread logs.
        handler = next((own for own in _logger.handlers if isinstance(own, _Handler)), None) or _Handler()
        handler.show(config, stream)
        _logger.addHandler(handler)
        _logger.setLevel(level)
        _logger.propagate = config.propagate


def _level_from_environment() -> int | None:
    text = os.environ.get(LEVEL_VARIABLE, "").strip()
    if not text:
        return None
    if text.lower() not in LEVELS:
        message = f"The environment variable {LEVEL_VARIABLE} {_bad_level(text)}"
        raise InvalidConfigError(message, argument=LEVEL_VARIABLE, value=text)
    return LEVELS[text.lower()]


class _Handler(logging.Handler):
    """Our one handler; looks the stream up when it writes, so that a replaced `sys.stderr` is followed."""

    def __init__(self) -> None:
        super().__init__()
        self.show(LogConfig(), None)

    def show(self, config: LogConfig, stream: TextIO | None) -> None:
        """Use this look and stream from the next record on."""
        plain = JsonFormatter(location=config.location) if config.json else TextFormatter(config)
        coloured = TextFormatter(config, coloured=True) if config.color and not config.json else plain
        self._view = (plain, coloured, stream)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line; like every standard handler, report a failure and go on."""
        plain, coloured, stream = self._view
        target = stream if stream is not None else cast("TextIO | None", sys.stderr)
        if target is None:  # a program without a console
            return
        try:
            formatter = coloured if _shows_colour(target) else plain
            target.write(formatter.format(record) + "\n")
            target.flush()
        except Exception:  # noqa: BLE001 - the contract of logging: a full pipe must not stop the program
            self.handleError(record)


def _shows_colour(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


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
        event: Mapping[str, Any] = getattr(record, "event", {})
        for name, value in event.items():
            # The event's own time is the record's to the microsecond, so it is not repeated.
            if name != "time":
                line[f"event_{name}" if name in line else name] = _json_value(value)
        return json.dumps(line, ensure_ascii=False, allow_nan=False, default=str)


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(name): _json_value(item) for name, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in cast("list[Any]", value)]
    return value


def _label(level: int) -> str:
    return _LABELS.get(level, f"level {level}")


def _iso(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, tz=timezone.utc)  # noqa: UP017 - reads the same on every version
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log_training_step(step: int, total: int, loss: float, lr: float) -> None:
    """Log one optimizer step at level info, with numbers as numbers.

    Args:
        step: Steps taken so far, counted from 1.
        total: Steps of the whole run; 0 when unknown.
        loss: Mean loss of the step, nats a token.
        lr: Learning rate of the step.

    >>> log_training_step(1, 10, loss=2.5, lr=1e-4)
    """
    emit(TrainingStep(step=step, total=total, loss=float(loss), lr=float(lr)))


def log_memory_usage(allocated_bytes: int, peak_bytes: int, context: str = "") -> None:
    """Log a reading of memory at level debug.

    Args:
        allocated_bytes: Bytes in use now.
        peak_bytes: The most bytes in use so far.
        context: What was measured, for example `after the forward pass`.

    >>> log_memory_usage(1024, 2048, "after the forward pass")
    """
    emit(MemoryUsage(allocated_bytes=allocated_bytes, peak_bytes=peak_bytes, context=context))


def log_metric(**metrics: SupportsFloat) -> None:
    """Log named numbers of your own at level info; each becomes a field of the record.

    Args:
        metrics: Numbers by name; a tensor or NumPy value of one element is taken as its number.

    Raises:
        InvalidConfigError: A value that is no number, or a name that every record has (`event`, `time`).

    >>> log_metric(accuracy=0.75, correct=3)
    >>> log_metric(accuracy="high")
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: `accuracy` (='high') must be a number.
    """
    found = [problem for name, value in metrics.items() if (problem := _metric_problem(name, value))]
    if found:
        raise InvalidConfigError(problems=found)
    # Whole numbers stay exact; everything else is a float.
    emit(Metric(values={k: v if isinstance(v, int) else float(v) for k, v in metrics.items()}))


def _metric_problem(name: str, value: object) -> Problem | None:
    if name in _RESERVED:
        return Problem(
            name, f"is a field of every record, so a metric cannot have that name (it was {value!r}).", value
        )
    if isinstance(value, str):
        return Problem(name, f"(={value!r}) must be a number.", value)
    try:
        float(cast("SupportsFloat", value))
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor with several elements
        return Problem(name, f"(={value!r}) must be a number.", value)
    return None
