"""The folder of a run: where everything lies, and who may write to it.

runs/<name>/  config.yaml    the effective configuration, with the origin of each value
              manifest.json  versions, machine, variables, data: what the result depends on
              events.jsonl   everything that happened, one JSON object a line
              checkpoints/   step-000040/ ...: hashed, atomic
              adapter/       in peft's format (`model/` after full fine-tuning)
              summary.json   written last: the run is complete
              report.html    all of it for people
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import StorageError
from bedstone.repro import write_json_atomic

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Answer:
    """A sample prompt with the model's answer before the first step (`None`: asked since a resume) and after the last."""

    prompt: str
    before: str | None
    after: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a finished run; losses are held-out nats a token, `None` without held-out rows."""

    steps: int
    seconds: float
    loss_before: float | None
    loss_after: float | None
    weights: str
    weights_sha256: str
    config_hash: str
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """The effective configuration."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """What the result depends on."""
        return self.path / "manifest.json"

    @property
    def events(self) -> Path:
        """Everything that happened."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints."""
        return self.path / "checkpoints"

    @property
    def summary(self) -> Path:
        """Present when the run is complete."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    def weights(self, *, adapter: bool) -> Path:
        """Where the result lies: an adapter in peft's format, or a whole model."""
        return self.path / ("adapter" if adapter else "model")

    def make(self) -> None:
        """Create the folder.

        Raises:
            StorageError: It cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remedy = "Set `output_dir` to a folder that you may write to."
            raise StorageError.from_os_error(
                error, path=self.path, doing="make the run folder", remedy=remedy
            ) from error

    def refuse_foreign(self) -> None:
        """Refuse a folder that no run was in and that holds something which a run would overwrite.

        Raises:
            StorageError: Names the first such thing: a `config.yaml` of the user's own, or a folder called `model`.
        """
        if (self.path / ".lock").exists() or self.events.exists():
            return
        papers = (self.config, self.manifest, self.checkpoints, self.summary, self.report)
        for place in (*papers, self.weights(adapter=True), self.weights(adapter=False)):
            if place.exists():
                message = f"{self.path} holds {place.name}, which no run has written; nothing was touched."
                raise StorageError(message, path=place, remedy="Set another `output_dir`.")

    def read_summary(self) -> Summary | None:
        """Return the summary of a finished run, `None` while it is not finished.

        Raises:
            StorageError: The file is there and cannot be read.
        """
        if not self.summary.exists():
            return None
        try:
            fields: dict[str, Any] = json.loads(self.summary.read_text(encoding="utf-8"))
            answers = tuple(Answer(**item) for item in fields.pop("answers"))
            return Summary(**fields, answers=answers)
        except (OSError, ValueError, TypeError, KeyError) as error:
            message = f"{self.summary} cannot be read: {error}."
            raise StorageError(message, path=self.summary, remedy="Remove it to run the last steps again.") from error

    def write_summary(self, summary: Summary) -> None:
        """Mark the run as complete."""
        write_json_atomic(self.summary, asdict(summary))
