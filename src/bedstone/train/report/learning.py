"""The middle of the report: the curves, and what the model answered before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.train.report.curves import MOST_POINTS, loss_plot, memory_plot, rate_plot, smoothing_span, speed_plot
from bedstone.train.report.figure import figure
from bedstone.train.report.markup import Html, element, foreign, join
from bedstone.train.report.scale import drawable
from bedstone.train.report.table import Number, folded, table
from bedstone.train.report.wording import say_bytes, say_count, say_loss, say_number, say_plural, say_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bedstone.train.report.read import Record
    from bedstone.train.report.story import Story

_LISTED = 10


def loss_section(story: Story) -> Html:
    """Return the loss curve with the learning rate below it, and the numbers behind both."""
    plots = [plot for plot in (loss_plot(story), rate_plot(story)) if plot]
    if not plots:
        return _section(
            "Loss", element("p", "There is no loss to draw yet: no step and no evaluation has been logged.")
        )
    return _section("Loss", figure(plots, _loss_caption(story)), _unreal(story), _numbers(story))


def speed_section(story: Story) -> Html:
    """Return speed and memory over the time at work."""
    speed, memory = speed_plot(story), memory_plot(story)
    caption = "Both axes start at 0; pauses between two stretches of the run are left out."
    figures = [
        figure([plot], caption) if plot else element("p", f"The events hold no {name} yet.", class_="note")
        for plot, name in ((speed, "speed (tokens per second)"), (memory, "memory figures"))
    ]
    return _section("Speed and memory", *figures)


def answers_section(story: Story) -> Html:
    """Return each prompt with its first and its latest answer side by side, and those between folded away."""
    if not story.answers:
        ask = element("code", "sample_prompts")
        text = join(["No sample has been answered. Prompts under ", ask, " are answered before and after."])
        return _section("Answers before and after", element("p", text))
    return _section(
        "Answers before and after", *(_answers(prompt, given, story) for prompt, given in story.answers.items())
    )


def _section(title: str, *content: object) -> Html:
    return element("section", element("h2", title), *content)


def _loss_caption(story: Story) -> str:
    drawn = sum(drawable(step.number("loss")) for step in story.steps)
    thinned = drawn > MOST_POINTS
    parts = [
        "Band: smallest to largest training loss of neighbouring steps"
        if thinned
        else "Dots: training loss of each step"
    ]
    if span := smoothing_span(drawn):
        parts.append(f"line: mean of {span} neighbouring steps")
    if story.evaluations:
        parts.append("diamonds: loss on held-out text that is never trained on")
    return "; ".join(parts) + ". Lower is better."


def _unreal(story: Story) -> Html | None:
    """Return a warning that names the steps whose loss cannot be drawn."""
    bad = [(s.step, loss) for s in story.steps if (loss := s.number("loss")) is not None and not drawable(loss)]
    if not bad:
        return None
    listed = ", ".join(f"{step} ({say_loss(loss)})" for step, loss in bad[:_LISTED])
    more = f" and {len(bad) - _LISTED:,} more" if len(bad) > _LISTED else ""
    advice = "A lower learning rate or a smaller max_grad_norm may help."
    text = f"{say_plural(len(bad), 'step')} without a usable loss, not drawn: {listed}{more}. {advice}"
    return element("p", text, class_="warning")


def _numbers(story: Story) -> Html:
    every = -(-len(story.steps) // MOST_POINTS) or 1
    shown = [step for index, step in enumerate(story.steps) if index % every == 0 or step is story.steps[-1]]
    caption = "The logged steps." if every == 1 else f"Every {every}th logged step, and the last."
    head = ["Step", "Loss", "Learning rate", "Gradient norm", "Tokens", "Tokens/s", "Seconds", "Memory"]
    steps = table(caption, [Number(title) for title in head], [_step_row(step) for step in shown])
    held = [[Number(f"{e.step:,}"), Number(say_loss(e.number("loss"))), *_effort(e)] for e in story.evaluations]
    heads = [Number(title) for title in ("Step", "Held-out loss", "Tokens", "Seconds")]
    evaluations = table("The evaluations on held-out text.", heads, held) if held else None
    return folded("The numbers", evaluations, steps)


def _effort(record: Record) -> list[Number]:
    return [Number(say_count(record.number("tokens"))), Number(say_seconds(record.number("seconds")))]


def _step_row(step: Record) -> list[Number]:
    cells = [
        f"{step.step:,}",
        say_loss(step.number("loss")),
        say_number(step.number("lr")),
        say_number(step.number("grad_norm")),
        say_count(step.number("tokens")),
        say_count(step.number("tokens_per_s")),
        say_seconds(step.number("seconds")),
        say_bytes(step.number("memory_bytes")),
    ]
    return [Number(cell) for cell in cells]


def _answers(prompt: str, given: Sequence[Record], story: Story) -> Html:
    first, last = given[0], given[-1]
    when = "After" if story.finished and last.step == story.last_step else "Latest"
    later = _answer(when, last) if last is not first else element("div", _missing(), class_="answer")
    between = [_answer("Between", answer) for answer in given[1:-1]]
    return join(
        [
            element("h3", "Prompt: ", element("span", foreign(prompt), class_="prompt")),
            element("div", _answer("Before" if first.step == 0 else "First", first), later, class_="answers"),
            *([folded(say_plural(len(between), "answer") + " between", *between)] if between else []),
        ]
    )


def _missing() -> Html:
    return join([element("h4", "Latest"), element("p", "Not answered again yet.", class_="note")])


def _answer(when: str, answer: Record) -> Html:
    text = answer.text("answer")
    said = element("blockquote", text, dir="auto") if text.strip() else element("p", "An empty answer.", class_="note")
    return element("div", element("h4", f"{when} (step {answer.step:,})"), said, class_="answer")
