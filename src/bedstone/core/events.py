"""One stream of typed events; every log line, progress bar, file and report is a view of it, so none can disagree.

An event is a frozen record of flat fields. `emit(event)` hands it to each sink (a plain function of one event) and to
the standard logger `bedstone`, where `record.event` holds the fields with numbers as numbers. With no sink and the
logger's level above the event's, `emit` does nothing. A family declares its own events beside its code by subclassing
`Event`.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from bedstone.core import errors
from bedstone.core.json import json_line

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator

logger = logging.getLogger("bedstone")
# The standard handler of a library: without it, Python would print our warnings when nobody configured logging.
logger.addHandler(logging.NullHandler())

_sinks: tuple[Callable[[Event], None], ...] = ()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened; subclasses add flat fields and say them in a sentence.

    Attributes:
        name: Stable name for programs, in snake case.
        level: Level of the `logging` module.
        transient: True for events that only matter while they happen; files leave them out.
        time: Seconds since the epoch.

    >>> @dataclass(frozen=True, slots=True, kw_only=True)
    ... class LampLit(Event):
    ...     name: ClassVar[str] = "lamp_lit"
    ...     watts: float
    >>> LampLit(watts=4.5).message()
    'lamp_lit watts=4.5'
    """

    name: ClassVar[str] = "event"
    level: ClassVar[int] = logging.INFO
    transient: ClassVar[bool] = False

    time: float = field(default_factory=time.time)

    def message(self) -> str:
        """Return the event as one sentence for people."""
        fields = self.record()
        return " ".join([self.name, *(f"{k}={v}" for k, v in fields.items() if k not in {"event", "time"})])

    def record(self) -> dict[str, Any]:
        """Return name, time and fields as one flat dictionary of JSON values; fields that are `None` are left out."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"event": self.name} | {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSelected(Event):
    """A device was chosen: which, for what request, from where the request came, and why."""

    name: ClassVar[str] = "device_selected"
    device: str
    requested: str
    source: str
    reason: str

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return f"Using {self.device} ({self.requested} from {self.source}): {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigValidated(Event):
    """A configuration passed its own rules."""

    name: ClassVar[str] = "config_validated"
    level: ClassVar[int] = logging.DEBUG
    config: str
    source: str = "argument"

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return f"{self.config} from {self.source} is valid."


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRaised(Event):
    """A `CoreError` was raised: code, class, text, `file:line` and the stack. It may be caught: hence level DEBUG."""

    name: ClassVar[str] = "error"
    level: ClassVar[int] = logging.DEBUG
    code: str
    error: str
    text: str
    location: str
    stack: str

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return f"{self.error} at {self.location}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStep(Event):
    """An optimizer step was taken; `step` counts from 1, `loss` is nats a token, `memory_bytes` the peak so far."""

    name: ClassVar[str] = "training_step"
    step: int
    total: int
    loss: float
    lr: float
    grad_norm: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    tokens_per_s: float | None = None
    memory_bytes: int | None = None

    @property
    def progress_percent(self) -> float:
        """The share of steps taken, 0 to 100; 0 when the total is 0."""
        return 100.0 * self.step / self.total if self.total else 0.0

    def message(self) -> str:
        """Return the event as one sentence for people."""
        rate = f", {self.tokens_per_s:.0f} tokens/s" if self.tokens_per_s is not None else ""
        share = f"({self.progress_percent:.0f}%)"
        return f"step {self.step}/{self.total} {share}: loss {self.loss:.4f}, lr {self.lr:.2e}{rate}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUsage(Event):
    """A reading of memory in bytes, and of what."""

    name: ClassVar[str] = "memory_usage"
    level: ClassVar[int] = logging.DEBUG
    allocated_bytes: int
    peak_bytes: int
    context: str = ""

    def message(self) -> str:
        """Return the event as one sentence for people."""
        where = f"{self.context}: " if self.context else ""
        return f"{where}{self.allocated_bytes:,} bytes allocated, peak {self.peak_bytes:,} bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(Event):
    """Named numbers of the caller's own; they become fields of the record."""

    name: ClassVar[str] = "metric"
    values: dict[str, float]

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return ", ".join(f"{name} {value:g}" for name, value in self.values.items())

    def record(self) -> dict[str, Any]:
        """Return the numbers as fields of their own beside name and time."""
        return {"event": self.name, "time": self.time, **self.values}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """Work of several seconds moved on: `done` of `total` units; `total` 0 means unknown."""

    name: ClassVar[str] = "progress"
    level: ClassVar[int] = logging.DEBUG
    transient: ClassVar[bool] = True
    phase: str
    done: int
    total: int
    unit: str = ""

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return f"{self.phase}: {self.done}/{self.total} {self.unit}".rstrip()


def listening(level: int = logging.INFO) -> bool:
    """Tell whether anybody would see an event of this level; lets a caller skip the work of building it."""
    return bool(_sinks) or logger.isEnabledFor(level)


def emit(event: Event, *, stacklevel: int = 1) -> None:
    """Hand an event to every sink, in the order they were added, and to the logger `bedstone`.

    Raises whatever a sink raises: a sink that may fail without harm must say so itself.

    Args:
        event: What happened.
        stacklevel: Whose line a log record names: 1 is the caller, 2 the caller's caller, as in `logging`.

    >>> seen = []
    >>> with sink(seen.append):
    ...     emit(Metric(values={"loss": 1.5}))
    >>> seen[0].record()["loss"]
    1.5
    """
    for receive in _sinks:
        receive(event)
    if logger.isEnabledFor(event.level):
        logger.log(event.level, "%s", event.message(), extra={"event": event.record()}, stacklevel=stacklevel + 1)


def add_sink(receive: Callable[[Event], None]) -> Callable[[], None]:
    """Have `receive` called with every event from now on, in any thread; return the function that removes it."""
    global _sinks  # noqa: PLW0603 - the stream of the process; replaced whole, so that emit needs no lock
    with _lock:
        _sinks = (*_sinks, receive)

    def remove() -> None:
        global _sinks  # noqa: PLW0603
        with _lock:
            _sinks = tuple(other for other in _sinks if other is not receive)

    return remove


@contextmanager
def sink(receive: Callable[[Event], None]) -> Generator[None]:
    """Have `receive` called with every event inside the block."""
    remove = add_sink(receive)
    try:
        yield
    finally:
        remove()


class JsonlSink:
    """A file with one JSON object an event, each line written at once; transient events are left out.

    Args:
        path: The file; appended to, created when missing. Its folder must exist.

    Raises:
        StorageError: The file cannot be opened or written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115, PTH123 - closed by close()
        except OSError as error:
            raise errors.StorageError.from_os_error(error, path=path, doing="open the event file") from error

    def __call__(self, event: Event) -> None:
        """Write one event as one line."""
        if event.transient:
            return
        line = json_line(event.record()) + "\n"
        try:
            with self._lock:
                self._file.write(line)
        except OSError as error:
            raise errors.StorageError.from_os_error(error, path=self.path, doing="write an event") from error

    def close(self) -> None:
        """Close the file; call it after removing the sink.

        Raises:
            StorageError: What was still to be written could not be.
        """
        try:
            self._file.close()
        except OSError as error:
            raise errors.StorageError.from_os_error(error, path=self.path, doing="close the event file") from error


class _Reporting(threading.local):
    busy = False


_reporting = _Reporting()


def _emit_error(error: errors.CoreError) -> None:
    # What a sink raises while it is told of an error is not told in turn: that would never end.
    if _reporting.busy or not listening(ErrorRaised.level):
        return
    _reporting.busy = True
    try:
        emit(_raised(error))
    except Exception as failure:  # noqa: BLE001 - the error at hand matters more, and says what happened to its event
        error.add_note(f"The event of this error reached not every sink: {type(failure).__name__}: {failure}")
    finally:
        _reporting.busy = False


def _raised(error: errors.CoreError) -> ErrorRaised:
    frame = sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - no public name
    # The constructors of the error come last, in whatever file; the raise stands before them.
    while frame.f_back is not None and (
        frame.f_code.co_filename in {errors.__file__, __file__} or frame.f_locals.get("self") is error
    ):
        frame = frame.f_back
    return ErrorRaised(
        code=error.code,
        error=type(error).__name__,
        # The base's text: a subclass that has a `__str__` of its own may not have set its attributes yet.
        text=errors.CoreError.__str__(error),
        location=f"{frame.f_code.co_filename}:{frame.f_lineno}",
        stack="".join(traceback.format_stack(frame)),
    )


errors.observe_errors(_emit_error)
