"""The top of the report: what was trained, whether it worked, and the facts of the run at a glance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bedstone.train.report.markup import Html, element, foreign, join
from bedstone.train.report.wording import (
    say_bytes,
    say_change,
    say_count,
    say_loss,
    say_number,
    say_plural,
    say_seconds,
    say_time,
    say_times,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bedstone.train.report.read import Record, RunFiles
    from bedstone.train.report.story import Story

_ENDS = 5  # steps averaged at both ends where only the training loss can be compared
_ARROW = " \N{RIGHTWARDS ARROW} "


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence on whether the run worked.

    Attributes:
        text: The sentence.
        mood: `better`, `worse` or empty, a class in the style sheet.
    """

    text: str
    mood: str = ""


def run_name(files: RunFiles, story: Story) -> str:
    """Return the name that the run gave itself, or the folder's."""
    return (story.start.text("run") if story.start else "") or files.name


def verdict(story: Story) -> Verdict:
    """Return the verdict: held-out loss before and after, or what stands in for it.

    >>> from bedstone.train.report.story import Story
    >>> verdict(Story()).text
    'No training step has been logged yet.'
    """
    before, after = _held_out(story)
    so_far = "" if story.finished else " so far"
    if before is not None and after is not None:
        return _compare("Held-out loss", before, after, so_far)
    known = before if before is not None else after
    if known is not None:
        return Verdict(f"Held-out loss {say_loss(known, 2)}, evaluated once{so_far}: nothing to compare it with.")
    losses = [loss for step in story.steps if (loss := step.number("loss")) is not None]
    if not losses:
        return Verdict("No training step has been logged yet.")
    if len(losses) < 2 * _ENDS:
        return Verdict(f"Training loss {say_loss(losses[-1], 2)} after {say_plural(story.last_step, 'step')}{so_far}.")
    ends = f" (means of the first and last {_ENDS} steps; there is no held-out evaluation)"
    return _compare(
        "Training loss", math.fsum(losses[:_ENDS]) / _ENDS, math.fsum(losses[-_ENDS:]) / _ENDS, so_far + ends
    )


def opening(files: RunFiles, story: Story) -> Html:
    """Return title, verdict, how it ended, and the facts."""
    found = verdict(story)
    start = story.start
    base = start.text("base_model") if start else ""
    return element(
        "header",
        element("h1", foreign(run_name(files, story))),
        element("p", "A fine-tune of ", foreign(base), class_="base") if base else None,
        element("p", found.text, class_=f"verdict {found.mood}".strip()),
        element("p", ending(story)),
        element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in _facts(story))),
    )


def ending(story: Story) -> Html:
    """Return how the run stands, in a sentence or two."""
    last = story.stretches[-1] if story.stretches else None
    if last is None:
        return join(["The event file holds no event yet."])
    done = _steps_done(story)
    if story.finished:
        pauses = f", resumed {say_times(len(story.pauses))} on the way" if story.pauses else ""
        return join([f"The run finished after {done} and {say_seconds(story.worked_s)} at work{pauses}."])
    go_on = join(
        [element("code", "bedstone train CONFIG.yaml --resume auto"), " goes on from the last good checkpoint."]
    )
    if last.ending == "interrupted":
        return join([f"The run was interrupted by {last.signal or 'a signal'} after {done}. ", go_on])
    if story.failure:
        return join([f"The run stopped after {done} with an error: ", foreign(story.failure.text("text")), " ", go_on])
    seen = f"The run has not said that it ended: it is at work or was killed. Last sign: {say_time(last.ended)}, "
    return join([seen, f"after {done}. If it was killed, ", go_on])


def _held_out(story: Story) -> tuple[float | None, float | None]:
    losses = [loss for record in story.evaluations if (loss := record.number("loss")) is not None]
    before = losses[0] if losses else None
    after = losses[-1] if len(losses) > 1 else None
    if story.finished:
        said = story.finished.number("loss_before"), story.finished.number("loss_after")
        before, after = (said[0] if said[0] is not None else before, said[1] if said[1] is not None else after)
    return before, after


def _compare(subject: str, before: float, after: float, remark: str) -> Verdict:
    text = f"{subject} {say_loss(before, 2)}{_ARROW}{say_loss(after, 2)}"
    if not math.isfinite(after):
        return Verdict(f"{text}{remark}: the run diverged.", "worse")
    if not math.isfinite(before):
        return Verdict(f"{text}{remark}.")
    change = say_change(before, after)
    mood = "better" if after < before else "worse" if after > before else ""
    word = {"better": "", "worse": ": it got worse", "": ": unchanged"}[mood]
    return Verdict(f"{text}{', ' + change if change and mood else ''}{remark}{word}.", mood)


def _steps_done(story: Story) -> str:
    total = story.total_steps
    return f"step {story.last_step:,} of {total:,}" if total is not None else say_plural(story.last_step, "step")


def _facts(story: Story) -> Iterator[tuple[str, object]]:
    if story.device:
        yield "Device", foreign(story.device.text("device"))
    elif story.start:
        yield "Device", foreign(story.start.text("device") or "unknown")
    yield "Steps", _steps_done(story).removeprefix("step ")
    if story.start and story.start.number("epochs") is not None:
        yield "Epochs", f"{story.start.number('epochs'):g}"
    if story.start:
        yield "Parameters trained", _parameters(story.start)
    if story.packed:
        yield "Base model packed", foreign(_packed(story.packed))
    yield "Time at work", say_seconds(story.worked_s)
    # Steps that were not logged would be missing from the sum.
    tokens = _sum(story.steps, "tokens") if len(story.steps) == story.last_step else None
    if tokens is not None:
        yield "Tokens seen", say_count(tokens)
    peak = max((value for step in story.steps if (value := step.number("memory_bytes")) is not None), default=None)
    if peak is not None:
        yield "Peak memory", say_bytes(peak)
    if story.evaluations:
        yield "Best held-out loss", _best(story.evaluations)
    if story.stretches:
        yield "Began", say_time(story.stretches[0].began)
        yield "Last event", say_time(story.stretches[-1].ended)


def _parameters(start: Record) -> str:
    every, trained = start.number("parameters"), start.number("trainable_parameters")
    if trained is None:
        return "unknown"
    share = f" of {say_count(every)} ({say_number(100 * trained / every)}\N{NO-BREAK SPACE}%)" if every else ""
    return say_count(trained) + share


def _packed(record: Record) -> str:
    sizes = [record.number(field) for field in ("dense_bytes", "packed_bytes")]
    scheme, known = record.text("scheme"), [say_bytes(size) for size in sizes if size is not None]
    return f"{scheme}: {known[0]}{_ARROW}{known[1]}" if len(known) == len(sizes) else scheme


def _sum(records: Sequence[Record], field: str) -> float | None:
    values = [value for record in records if (value := record.number(field)) is not None]
    return sum(values) if values and len(values) == len(records) else None


def _best(evaluations: Sequence[Record]) -> str:
    finite = [(loss, e.step) for e in evaluations if (loss := e.number("loss")) is not None and math.isfinite(loss)]
    if not finite:
        return "none is a number"
    loss, step = min(finite)
    return f"{say_loss(loss)} at step {step:,}"
