"""Starts, stops and checkpoints: what a person asks who finds a run in pieces."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from bedstone.train.report.markup import Html, element, foreign, join
from bedstone.train.report.table import Number, table
from bedstone.train.report.wording import say_bytes, say_plural, say_seconds, say_time

if TYPE_CHECKING:
    from bedstone.train.report.read import Record
    from bedstone.train.report.story import Story, Stretch


def history_section(story: Story) -> Html:
    """Return the stretches of the run, its checkpoints and those found damaged."""
    return element(
        "section",
        element("h2", "Starts, stops and checkpoints"),
        _stretches(story),
        _differences(story),
        _damaged(story),
        _checkpoints(story),
    )


def _stretches(story: Story) -> Html:
    if not story.stretches:
        return element("p", "The run has not started.")
    head = ["Began", Number("From step"), Number("To step"), Number("At work"), "Ended"]
    last = story.stretches[-1]
    rows = [
        [
            say_time(part.began),
            Number(f"{part.resumed_from:,}"),
            Number(f"{part.reached:,}"),
            Number(say_seconds(part.ended_at_s - part.began_at_s)),
            _how_it_ended(part, is_last=part is last),
        ]
        for part in story.stretches
    ]
    again = sum(max(before.reached - after.resumed_from, 0) for before, after in story.pauses)
    notes = (
        [f"Steps taken again because they came after the checkpoint that was resumed from: {again:,}."] if again else []
    )
    if story.abandoned:
        left_out = say_plural(story.abandoned, "stretch", "stretches")
        notes.append(f"Left out: {left_out} from before the run was begun again from the beginning.")
    stretches = table("The stretches of the run, each without a pause.", head, rows)
    return join([stretches, *(element("p", note, class_="note") for note in notes)])


def _how_it_ended(part: Stretch, *, is_last: bool) -> Html:
    if part.ending == "finished":
        return join(["finished"])
    if part.ending == "interrupted":
        return join(["interrupted by ", foreign(part.signal or "a signal")])
    return join(["no last word: at work or killed" if is_last else "killed, no last word"])


def _differences(story: Story) -> Html | None:
    if not story.differences:
        return None
    title = "Resumed under other conditions, so the last bits of the result may differ from an uninterrupted run:"
    items = [element("li", foreign(difference)) for difference in story.differences]
    return join([element("p", title, class_="warning"), element("ul", *items)])


def _checkpoints(story: Story) -> Html:
    if not story.checkpoints:
        return element("p", "No checkpoint has been written.")
    head = [Number("Step"), "Folder", Number("Size"), Number("Time to write")]
    rows = [
        [
            Number(f"{record.step:,}"),
            foreign(_last_part(record)),
            Number(say_bytes(record.number("bytes"))),
            Number(say_seconds(record.number("seconds"))),
        ]
        for record in story.checkpoints
    ]
    return table("The checkpoints written; of older ones only as many are kept as save_total_limit says.", head, rows)


def _damaged(story: Story) -> Html | None:
    if not story.damaged:
        return None
    items = [
        element("li", foreign(_last_part(record)), ": ", foreign(record.text("reason") or "no reason given"))
        for record in story.damaged
    ]
    title = f"{say_plural(len(items), 'damaged checkpoint')} found and not used:"
    return join([element("p", title, class_="warning"), element("ul", *items)])


def _last_part(record: Record) -> str:
    """Return the folder's own name; where the run lay when it was written matters to nobody who reads this."""
    return PurePath(record.text("path")).name or "unknown"
