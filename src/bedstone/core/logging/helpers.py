"""The three lines that nearly every program logs: a training step, a reading of memory, numbers of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bedstone.core.errors import InvalidConfigError, Problem
from bedstone.core.events import MemoryUsage, Metric, TrainingStep, emit, listening
from bedstone.core.json import scalar

if TYPE_CHECKING:
    from typing import SupportsFloat

_RESERVED = ("event", "time")  # fields that every record has


def log_training_step(step: int, total: int, loss: float, lr: float) -> None:
    """Log one optimizer step at level info, with numbers as numbers.

    Args:
        step: Steps taken so far, counted from 1.
        total: Steps of the whole run; 0 when unknown.
        loss: Mean loss of the step, nats a token; a tensor of one element is taken as its number.
        lr: Learning rate of the step.

    >>> log_training_step(1, 10, loss=2.5, lr=1e-4)
    """
    if listening(TrainingStep.level):
        emit(TrainingStep(step=step, total=total, loss=float(scalar(loss)), lr=float(scalar(lr))), stacklevel=2)


def log_memory_usage(allocated_bytes: int, peak_bytes: int, context: str = "") -> None:
    """Log a reading of memory at level debug.

    Args:
        allocated_bytes: Bytes in use now.
        peak_bytes: The most bytes in use so far.
        context: What was measured, for example `after the forward pass`.

    >>> log_memory_usage(1024, 2048, "after the forward pass")
    """
    if listening(MemoryUsage.level):
        emit(MemoryUsage(allocated_bytes=allocated_bytes, peak_bytes=peak_bytes, context=context), stacklevel=2)


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
    values = {name: scalar(value) for name, value in metrics.items()}
    found = [problem for name, value in values.items() if (problem := _metric_problem(name, value))]
    if found:
        raise InvalidConfigError(problems=found)
    # Whole numbers stay exact; everything else is a float.
    emit(Metric(values={k: v if isinstance(v, int) else float(v) for k, v in values.items()}), stacklevel=2)


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
