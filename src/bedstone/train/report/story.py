"""What happened in a run, told from its events: resumes undo what was lost, repeated lines count once.

A start from the beginning makes what was before it history of another run, so it is left out and only counted.
A run that is killed and resumed writes some steps twice. Its resume names the step it goes on from, so everything
after that step is taken back and what follows counts. The time line is the time at work: the pause between the last
sign of one stretch and the first sign of the next is left out.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bedstone.train.report.read import Record

# Events that mean the training itself moved, and those that prepare it at each start.
_MOVES = frozenset(
    {"training_step", "evaluated", "sample_answer", "checkpoint_written", "run_interrupted", "run_finished"}
)
_SETUP = frozenset(
    {
        "config_validated",
        "device_selected",
        "model_converted",
        "model_quantized",
        "data_prepared",
        "checkpoint_damaged",
        "resume_differs",
        "run_started",
    }
)
# Events of which the last one counts, and where the story keeps it.
_LATEST = {"device_selected": "device", "model_quantized": "packed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of the run without a pause, from a start to an end.

    Attributes:
        began, ended: Seconds since the epoch, of its first and last event.
        began_at_s, ended_at_s: The same in seconds of work since the run began.
        resumed_from: The step it went on from; 0 for a start from the beginning.
        reached: The last step it took.
        ending: How it ended: `finished`, `interrupted`, or `silent` (killed, or still running).
        signal: What interrupted it, for example `SIGTERM`.
    """

    began: float
    ended: float
    began_at_s: float
    ended_at_s: float
    resumed_from: int
    reached: int
    ending: str
    signal: str = ""


@dataclass(slots=True, kw_only=True)
class Story:
    """The run as it stands.

    Attributes:
        start: The last `run_started`.
        device: The last `device_selected`.
        packed: The last `model_quantized`; `None` when the base model stays dense.
        finished: `run_finished`, unless the run was started again after it.
        failure: The event file's last line when that is an error.
        data: `data_prepared` by split.
        steps, evaluations, checkpoints: By step, in order, without what a resume took back.
        damaged: `checkpoint_damaged`, each once.
        differences: What was different at each resume, as `resume_differs` says it.
        answers: `sample_answer` by prompt, in the order of the steps.
        stretches: In the order of time.
        abandoned: How many stretches came before the last start from the beginning.
    """

    start: Record | None = None
    device: Record | None = None
    packed: Record | None = None
    finished: Record | None = None
    failure: Record | None = None
    data: dict[str, Record] = field(default_factory=dict)
    steps: tuple[Record, ...] = ()
    evaluations: tuple[Record, ...] = ()
    checkpoints: tuple[Record, ...] = ()
    damaged: tuple[Record, ...] = ()
    differences: tuple[str, ...] = ()
    answers: dict[str, tuple[Record, ...]] = field(default_factory=dict)
    stretches: tuple[Stretch, ...] = ()
    abandoned: int = 0

    @property
    def last_step(self) -> int:
        """The last step that counts; 0 before the first."""
        return self.steps[-1].step if self.steps else 0

    @property
    def total_steps(self) -> int | None:
        """The number of steps planned."""
        planned = self.start.whole("steps") if self.start else None
        return planned if planned is not None or not self.steps else self.steps[-1].whole("total")

    @property
    def worked_s(self) -> float:
        """Seconds at work so far."""
        return self.stretches[-1].ended_at_s if self.stretches else 0.0

    @property
    def pauses(self) -> tuple[tuple[Stretch, Stretch], ...]:
        """Each stretch with the one after it."""
        return tuple(zip(self.stretches, self.stretches[1:], strict=False))


def tell(records: Sequence[Record]) -> Story:
    """Return the story of a run.

    Args:
        records: Its events in the order of the file.

    >>> from bedstone.train.report.read import Record
    >>> story = tell([Record({"event": "training_step", "step": step}) for step in (1, 2, 2)])
    >>> [step.step for step in story.steps]
    [1, 2]
    """
    every = _split(records)
    abandoned = _last_beginning(every)
    groups = every[abandoned:]
    stretches = _stretches(groups)
    timed = [
        dataclasses.replace(record, at_s=stretch.began_at_s + _worked(stretch.began, record))
        for stretch, group in zip(stretches, groups, strict=True)
        for record in group
    ]
    story = _fold(timed)
    story.stretches, story.abandoned = stretches, abandoned
    story.failure = timed[-1] if timed and timed[-1].name == "error" else None
    return story


def _split(records: Sequence[Record]) -> list[list[Record]]:
    """Cut where the set-up of each start but the first begins."""
    groups: list[list[Record]] = [[]]
    setup_from: int | None = None
    underway = False
    for record in records:
        if record.name in _SETUP and setup_from is None:
            setup_from = len(groups[-1])
        if record.name == "run_started" and underway:
            groups.append(groups[-1][setup_from:])
            del groups[-2][setup_from:]
        groups[-1].append(record)
        if record.name in _MOVES or record.name == "run_started":
            setup_from, underway = None, True
    return [group for group in groups if group]


def _last_beginning(groups: Sequence[list[Record]]) -> int:
    """Return which group began from the beginning last."""
    return max((index for index, group in enumerate(groups) if not _resumed_from(group)), default=0)


def _resumed_from(group: Iterable[Record]) -> int:
    start = next((record for record in group if record.name == "run_started"), None)
    return (start.whole("resumed_from_step") if start else None) or 0


def _worked(began: float, record: Record) -> float:
    """Seconds since `began`; 0 when the clock was set back, so that time never runs backwards."""
    return max((record.time or began) - began, 0.0)


def _stretches(groups: Iterable[list[Record]]) -> tuple[Stretch, ...]:
    stretches: list[Stretch] = []
    for group in groups:
        offset = stretches[-1].ended_at_s if stretches else 0.0
        stretches.append(_stretch(group, offset))
    return tuple(stretches)


def _stretch(group: list[Record], offset: float) -> Stretch:
    began = next((record.time for record in group if record.time is not None), 0.0)
    worked = max(_worked(began, record) for record in group)
    resumed_from = _resumed_from(group)
    ends = [record for record in group if record.name in {"run_interrupted", "run_finished"}]
    names = {"run_interrupted": "interrupted", "run_finished": "finished"}
    return Stretch(
        began=began,
        ended=began + worked,
        began_at_s=offset,
        ended_at_s=offset + worked,
        resumed_from=resumed_from,
        reached=max((record.step for record in group if record.name == "training_step"), default=resumed_from),
        ending=names[ends[-1].name] if ends else "silent",
        signal=ends[-1].text("signal") if ends else "",
    )


def _fold(records: Iterable[Record]) -> Story:
    story = Story()
    by_step: dict[str, dict[object, Record]] = {name: {} for name in sorted(_MOVES)}
    damaged: dict[tuple[str, str], Record] = {}
    differences: dict[str, None] = {}
    for record in records:
        if record.name == "run_started":
            _take_back(by_step, after=record.whole("resumed_from_step") or 0)
            story.start, story.finished = record, None
        elif record.name in _LATEST:
            setattr(story, _LATEST[record.name], record)
        elif record.name == "data_prepared":
            story.data[record.text("split")] = record
        elif record.name == "checkpoint_damaged":
            damaged[record.text("path"), record.text("reason")] = record
        elif record.name == "resume_differs":
            differences[record.text("differences")] = None
        elif record.name == "sample_answer":
            by_step["sample_answer"][record.step, record.text("prompt")] = record
        elif record.name in _MOVES:
            by_step[record.name][record.step] = record
        if record.name == "run_finished":
            story.finished = record
    story.damaged = tuple(damaged.values())
    story.differences = tuple(differences)
    _settle(story, by_step)
    return story


def _take_back(by_step: dict[str, dict[object, Record]], *, after: int) -> None:
    for kept in by_step.values():
        for key in [key for key, record in kept.items() if record.step > after]:
            del kept[key]


def _settle(story: Story, by_step: dict[str, dict[object, Record]]) -> None:
    def ordered(name: str) -> tuple[Record, ...]:
        return tuple(sorted(by_step[name].values(), key=lambda record: record.step))

    story.steps, story.evaluations = ordered("training_step"), ordered("evaluated")
    story.checkpoints = ordered("checkpoint_written")
    for answer in ordered("sample_answer"):
        prompt = answer.text("prompt")
        story.answers[prompt] = (*story.answers.get(prompt, ()), answer)
