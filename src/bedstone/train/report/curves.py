"""Which curves a run has: loss and learning rate by step, speed and memory by time at work."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from bedstone.train.report.scale import drawable
from bedstone.train.report.svg import Mark, Plot, Point, Series
from bedstone.train.report.wording import say_bytes, say_loss, say_number, say_plural, say_seconds, say_times

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bedstone.train.report.read import Record
    from bedstone.train.report.story import Story

MOST_POINTS = 400
_STOPS = {"finished": "finished", "interrupted": "interrupted", "silent": "killed"}
_FEWEST_TO_SMOOTH = 10
_MINUTE, _HOUR = 60, 3600


def loss_plot(story: Story) -> Plot | None:
    """Return training and held-out loss by step, or `None` when no loss can be drawn yet."""
    train, held = _by_step(story.steps, "loss"), _by_step(story.evaluations, "loss")
    if not train and not held:
        return None
    span = smoothing_span(len(train))
    series = [
        Series(
            name="training loss",
            points=thin(train),
            style="train",
            shape="dots",
            say=say_loss,
            label="" if span else "training",
        )
    ]
    if span:
        line = tuple(Point(x, y, y, y) for x, y in _every(smoothed(train, span)))
        series.append(
            Series(name="smoothed", points=line, style="smooth", shape="line", say=say_loss, label="training")
        )
    points = tuple(Point(x, y, y, y) for x, y in held)
    series.append(
        Series(name="held-out loss", points=points, style="held", shape="diamonds", say=say_loss, label="held-out")
    )
    return Plot(
        about=_about_loss(train, held),
        y_title="loss, nats a token",
        x_title="",
        x_range=_step_range(story),
        series=tuple(series),
        say_x=lambda step: f"step {step:.0f}",
        x_whole=True,
        marks=(*_stops(story, by_time=False), *_undrawable_marks(story)),
    )


def rate_plot(story: Story) -> Plot | None:
    """Return the learning rate by step, a strip that lies under the loss."""
    rates = _by_step(story.steps, "lr")
    if not rates:
        return None
    series = Series(name="learning rate", points=thin(rates), style="plain", shape="line", say=say_number)
    highest = max(rate for _, rate in rates)
    return Plot(
        about=f"Learning rate by step: at most {say_number(highest)}, at the last step {say_number(rates[-1][1])}.",
        y_title="learning rate",
        x_title="step",
        x_range=_step_range(story),
        series=(series,),
        say_x=lambda step: f"step {step:.0f}",
        x_whole=True,
        from_zero=True,
        height=64,
    )


def speed_plot(story: Story) -> Plot | None:
    """Return tokens a second by time at work, or `None` when the events hold none."""

    def say(value: float) -> str:
        return f"{value:,.0f} tokens/s"

    return _timed_plot(story, "tokens_per_s", 1, "speed", "tokens a second", say)


def memory_plot(story: Story) -> Plot | None:
    """Return peak memory by time at work, or `None` when the events hold none."""
    most = max((value for _, value in _by_step(story.steps, "memory_bytes")), default=0.0)
    unit, name = (2**30, "GiB") if most >= 2**30 else (2**20, "MiB")
    return _timed_plot(
        story, "memory_bytes", unit, "memory", f"memory, {name} (peak so far)", lambda value: say_bytes(value * unit)
    )


def smoothing_span(count: int) -> int:
    """Return how many neighbouring steps the smoothed line takes the mean of: odd, a tenth of them, at most 201; 0 for too few.

    >>> smoothing_span(9), smoothing_span(36), smoothing_span(1000), smoothing_span(10**6)
    (0, 5, 101, 201)
    """
    return max(5, min(count // 10, 200) | 1) if count >= _FEWEST_TO_SMOOTH else 0


def smoothed(points: Sequence[tuple[float, float]], span: int) -> list[tuple[float, float]]:
    """Return the mean of `span` neighbours around each point; at the ends, of as many as there are on both sides.

    >>> smoothed([(1, 1.0), (2, 4.0), (3, 1.0)], span=3)
    [(1, 1.0), (2, 2.0), (3, 1.0)]
    """
    values = [y for _, y in points]
    result: list[tuple[float, float]] = []
    for index, (x, _) in enumerate(points):
        reach = min(span // 2, index, len(points) - 1 - index)
        window = values[index - reach : index + reach + 1]
        result.append((x, math.fsum(window) / len(window)))
    return result


def thin(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """Return at most `most` points: each stands for as many neighbours, with their mean, smallest and largest value.

    >>> thin([(1, 1.0), (2, 3.0), (3, 5.0)], most=2)
    (Point(x=2, y=2.0, low=1.0, high=3.0), Point(x=3, y=5.0, low=5.0, high=5.0))
    """
    size = max(1, math.ceil(len(points) / most))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple(_mean(group) for group in groups)


def _mean(group: Sequence[tuple[float, float]]) -> Point:
    values = [y for _, y in group]
    return Point(group[len(group) // 2][0], math.fsum(values) / len(values), min(values), max(values))


def _every(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the same places that `thin` keeps."""
    size = max(1, math.ceil(len(points) / MOST_POINTS))
    starts = range(0, len(points), size)
    return [points[start + len(points[start : start + size]) // 2] for start in starts]


def _by_step(records: Sequence[Record], field: str) -> list[tuple[float, float]]:
    pairs = ((record.step, record.number(field)) for record in records)
    return [(step, value) for step, value in pairs if value is not None and drawable(value)]


def _step_range(story: Story) -> tuple[float, float]:
    evaluated = [record.step for record in story.evaluations]
    return 0, max([story.last_step, 1, *evaluated])


def _about_loss(train: Sequence[tuple[float, float]], held: Sequence[tuple[float, float]]) -> str:
    sentences = ["Loss by step."]
    if train:
        (first, begin), (last, end) = train[0], train[-1]
        sentences.append(f"Training loss {say_loss(begin)} at step {first:.0f}, {say_loss(end)} at step {last:.0f}.")
    if held:
        listed = ", ".join(f"{say_loss(loss)} at step {step:.0f}" for step, loss in held)
        sentences.append(f"Held-out loss {listed}.")
    return " ".join(sentences)


def _stops(story: Story, *, by_time: bool) -> list[Mark]:
    """Return where the run stopped and, on the step axis, from where it went on; one mark a place."""
    said: dict[float, list[str]] = {}
    for before, after in story.pauses:
        stop, go_on = (before.ended_at_s, after.began_at_s) if by_time else (before.reached, after.resumed_from)
        said.setdefault(stop, []).append(_STOPS[before.ending])
        said.setdefault(go_on, []).append("resumed")
    last = story.stretches[-1] if story.stretches else None
    if last and last.ending == "interrupted":
        said.setdefault(last.ended_at_s if by_time else last.reached, []).append("interrupted")
    right = story.worked_s if by_time else _step_range(story)[1]
    return [Mark(place, _counted(words)) for place, words in said.items() if place <= right]


def _counted(words: Sequence[str]) -> str:
    """Return each word once, with how often when that is more than once."""
    counts = Counter(words)
    return ", ".join(word if count == 1 else f"{word} {say_times(count)}" for word, count in counts.items())


def _undrawable_marks(story: Story) -> list[Mark]:
    """Return a mark at the first step of each row of steps whose loss is not a number or infinite."""
    marks: list[Mark] = []
    before_was_fine = True
    for record in story.steps:
        loss = record.number("loss")
        fine = loss is None or drawable(loss)
        if not fine and before_was_fine:
            marks.append(Mark(record.step, f"loss {say_loss(loss)}"))
        before_was_fine = fine
    return marks


def _timed_plot(
    story: Story, field: str, unit: float, subject: str, y_title: str, say: Callable[[float], str]
) -> Plot | None:
    values = {record.step: record for record in story.steps if drawable(record.number(field))}
    if not values:
        return None
    divisor, unit_name = _time_unit(story.worked_s)
    points = [(record.at_s / divisor, (record.number(field) or 0.0) / unit) for record in values.values()]
    steps = {record.at_s / divisor: record.step for record in values.values()}
    heights = [y for _, y in points]
    series = Series(name=subject, points=thin(points), style="plain", shape="line", say=say)
    return Plot(
        about=f"{subject.capitalize()} over {say_plural(len(points), 'step')}: from {say(min(heights))} "
        f"to {say(max(heights))}, at the end {say(heights[-1])}.",
        y_title=y_title,
        x_title=f"time at work, {unit_name}",
        x_range=(0, max(story.worked_s, 1.0) / divisor),
        series=(series,),
        say_x=lambda at: f"{say_seconds(at * divisor)}, step {steps.get(at, 0)}",
        from_zero=True,
        marks=tuple(Mark(mark.x / divisor, mark.text) for mark in _stops(story, by_time=True)),
        height=120,
    )


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds < 3 * _MINUTE:
        return 1, "seconds"
    return (_MINUTE, "minutes") if seconds < 3 * _HOUR else (_HOUR, "hours")
