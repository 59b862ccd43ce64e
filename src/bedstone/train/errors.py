"""What can go wrong in a fine-tuning run, beside the general tree of `core.errors`.

CoreError
├── ModelLoadError       OSError             a base model that cannot be had; `base_model`
├── TrainingDivergedError ArithmeticError    the loss stopped being a number; `step`
├── ResumeError          ValueError          a checkpoint of another run; `changed`
└── InterruptedRunError  InterruptedError    stopped by a signal; `signal`, `step`, `checkpoint`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bedstone.core.errors import CoreError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class ModelLoadError(CoreError, OSError):
    """A base model that cannot be found, read or downloaded."""

    code = "model_load"
    base_model: str

    def __init__(self, message: str, *, base_model: str, remedy: str = "", **facts: Any) -> None:
        super().__init__(message, remedy=remedy, base_model=base_model, **facts)


class TrainingDivergedError(CoreError, ArithmeticError):
    """The loss or the gradient became infinite or not a number; the step was not taken."""

    code = "training_diverged"
    step: int

    def __init__(self, message: str, *, step: int, remedy: str = "", **facts: Any) -> None:
        super().__init__(message, remedy=remedy, step=step, **facts)


class ResumeError(CoreError, ValueError):
    """A run that cannot go on as asked: nothing was changed. `changed` lists what differs, `key: old -> new`."""

    code = "resume"
    changed: tuple[str, ...]

    def __init__(self, message: str, *, changed: Sequence[str] = (), remedy: str = "", **facts: Any) -> None:
        super().__init__(message, remedy=remedy, changed=tuple(changed), **facts)


class InterruptedRunError(CoreError, InterruptedError):
    """A signal ended the run between two steps; what was trained so far is in `checkpoint`.

    Attributes:
        signal: The number of the signal.
        step: The last step taken, 0 when there was none.
        checkpoint: The folder to go on from, `None` when no step was taken.
    """

    code = "interrupted"
    signal: int
    step: int
    checkpoint: Path | None

    def __init__(self, message: str, *, signal: int, step: int, checkpoint: Path | None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy, signal=signal, step=step, checkpoint=checkpoint)
