"""What happens in a fine-tuning run, as events; the progress bar, `events.jsonl` and `report.html` are views of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

from bedstone.core.events import Event
from bedstone.core.memory import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConverted(Event):
    """A GGUF file was unpacked into a folder that loads fast; happens once per file."""

    name: ClassVar[str] = "model_converted"
    source: str
    folder: str
    seconds: float

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return f"Converted {self.source} to {self.folder} in {self.seconds:.0f} s (kept for the next time)."


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPrepared(Event):
    """A split was read and turned into tokens; `trained_tokens` count in the loss."""

    name: ClassVar[str] = "data_prepared"
    split: str
    rows: int
    tokens: int
    trained_tokens: int
    truncated: int
    dropped: int

    def message(self) -> str:
        """Return the event as one sentence for people."""
        cut = f", {self.truncated:,} truncated" if self.truncated else ""
        lost = f", {self.dropped:,} dropped" if self.dropped else ""
        return f"{self.split}: {self.rows:,} rows, {self.tokens:,} tokens, {self.trained_tokens:,} trained{cut}{lost}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """Everything is loaded; steps begin after `resumed_from_step` (0: from the start)."""

    name: ClassVar[str] = "run_started"
    run: str
    base_model: str
    device: str
    steps: int
    epochs: float
    parameters: int
    trainable_parameters: int
    resumed_from_step: int

    def message(self) -> str:
        """Return the event as one sentence for people."""
        how = f"resumed after step {self.resumed_from_step}" if self.resumed_from_step else "started"
        share = 100 * self.trainable_parameters / self.parameters
        return (
            f"{self.run} {how}: {self.steps} steps ({_short(self.epochs)} epochs) on {self.device}, training "
            f"{self.trainable_parameters:,} of {self.parameters:,} parameters ({_short(share)}%)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeDiffers(Event):
    """A resume under other conditions than before: the run goes on, but bit-equality is no longer promised."""

    name: ClassVar[str] = "resume_differs"
    level: ClassVar[int] = logging.WARNING
    differences: str

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return f"Resuming under other conditions, results may differ in the last bits: {self.differences}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Event):
    """The held-out loss after `step` steps, in nats a token."""

    name: ClassVar[str] = "evaluated"
    step: int
    loss: float
    tokens: int
    seconds: float

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return f"held-out loss after step {self.step}: {self.loss:.4f} over {self.tokens:,} tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleAnswer(Event):
    """What the model answers to a sample prompt after `step` steps."""

    name: ClassVar[str] = "sample_answer"
    step: int
    prompt: str
    answer: str

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return f"after step {self.step}, {self.prompt!r} -> {self.answer!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten(Event):
    """A checkpoint is complete on the disk."""

    name: ClassVar[str] = "checkpoint_written"
    step: int
    path: str
    bytes: int
    seconds: float

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return f"checkpoint {self.path} ({format_bytes(self.bytes)} in {self.seconds:.2f} s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInterrupted(Event):
    """A signal stopped the run after `step`; `checkpoint` is empty when no step was taken."""

    name: ClassVar[str] = "run_interrupted"
    level: ClassVar[int] = logging.WARNING
    step: int
    signal: str
    checkpoint: str

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return f"Stopped by {self.signal} after step {self.step}."


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """The run is complete; losses are held-out nats a token, absent without held-out data."""

    name: ClassVar[str] = "run_finished"
    step: int
    seconds: float
    loss_before: float | None
    loss_after: float | None
    adapter: str

    def message(self) -> str:
        """Return the event as one sentence for people."""
        change = ""
        if self.loss_before is not None and self.loss_after is not None:
            change = f", held-out loss {self.loss_before:.3f} -> {self.loss_after:.3f}"
        return f"Finished {self.step} steps in {self.seconds:.0f} s{change}; saved to {self.adapter}"


def _short(number: float) -> str:
    """A number with two digits where it has no more than two before the point: 0.36, 8.2, 120."""
    return f"{number:.2g}" if number < 99.5 else f"{number:,.0f}"  # noqa: PLR2004 - what .2g would round to 1e+02
