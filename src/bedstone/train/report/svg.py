"""One small function that draws a plot as inline SVG: no script needed, values on hover, labels at the lines.

A plot is drawn in true units of the page (one unit is one pixel), so text keeps its size; the page holds a wide and a
narrow drawing and shows the one that fits. Colours come from the style sheet by class, which also knows the dark one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bedstone.train.report.markup import Html, element, join
from bedstone.train.report.scale import Axis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LINE_HEIGHT = 15
_LETTER = 6.6  # mean width of a letter at the drawing's font size; only used to keep labels apart


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a place; `low` and `high` differ from `y` when it stands for several."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Values that belong together.

    Attributes:
        name: What they are, for hover texts.
        style: Class in the style sheet: `train`, `smooth`, `held`, `plain`.
        label: Written at the end of the line; empty for none.
        shape: `dots`, `line` or `diamonds`.
        say: A value as text.
    """

    name: str
    points: tuple[Point, ...]
    style: str
    shape: str
    say: Callable[[float], str]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a place on the x axis, said in a word or two."""

    x: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Everything a drawing shows.

    Attributes:
        about: The picture in words, for those who do not see it.
        y_title: What the y axis measures, with its unit; whether it starts at 0 is added.
        x_title: What the x axis measures; empty draws no title.
        x_range: Its ends.
        x_whole: Whether only whole numbers are marked.
        say_x: A place on the x axis as text.
        height: Of the area for the data.
    """

    about: str
    y_title: str
    x_title: str
    x_range: tuple[float, float]
    series: tuple[Series, ...]
    say_x: Callable[[float], str]
    x_whole: bool = False
    from_zero: bool = False
    marks: tuple[Mark, ...] = ()
    height: int = 220


def draw(plot: Plot, *, width: int, class_: str) -> Html:
    """Return a plot as an SVG element.

    Args:
        plot: What to draw; its values are drawable numbers.
        width: In pixels, at least 240.
        class_: Class of the element.
    """
    rows = _mark_rows(plot.marks, plot.x_range, width)
    top = 24 + _LINE_HEIGHT * (1 + max((row for _, row in rows), default=-1))
    bottom = top + plot.height
    x = Axis.spanning(*plot.x_range, start=54, end=width - 70, count=max(2, width // 75), whole=plot.x_whole)
    heights = [end for series in plot.series for point in series.points for end in (point.low, point.high)]
    y = Axis.around(heights, start=bottom, end=top, count=5 if plot.height > 100 else 2, from_zero=plot.from_zero)  # noqa: PLR2004
    full = bottom + 20 + (18 if plot.x_title else 0)
    parts = [
        _y_axis(plot, y, x),
        _x_axis(plot, x, bottom),
        *(_mark_line(mark, row, x, top, bottom) for mark, row in rows),
        *(_mark_text(mark, row, x, top) for mark, row in rows if row >= 0),
        *(_series(series, x, y) for series in plot.series),
        _end_labels(plot.series, x, y),
        _hover(plot, x, y, top, bottom),
    ]
    size = {"viewBox": f"0 0 {width} {full}", "width": width, "height": full}
    return element("svg", *parts, role="img", aria_label=plot.about, class_=class_, **size)


def _write(x: float, y: float, content: object, *, anchor: str | None = None, class_: str | None = None) -> Html:
    return element("text", content, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=class_)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    return element("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=class_)


def _y_axis(plot: Plot, y: Axis, x: Axis) -> Html:
    start = "" if y.low <= 0 <= y.high else f" (axis starts at {y.labels()[0]}, not 0)"
    grid = [_line(x.start, y.place(tick), x.end, y.place(tick), "grid") for tick in y.ticks]
    ticks = zip(y.ticks, y.labels(), strict=True)
    labels = [_write(x.start - 8, y.place(tick) + 4, label, anchor="end") for tick, label in ticks]
    return join([_write(0, 12, plot.y_title + start, class_="axis-title"), *grid, *labels])


def _x_axis(plot: Plot, x: Axis, bottom: float) -> Html:
    ticks = [_line(x.place(tick), bottom, x.place(tick), bottom + 4, "tick") for tick in x.ticks]
    written = zip(x.ticks, x.labels(), strict=True)
    labels = [_write(x.place(tick), bottom + 17, label, anchor="middle") for tick, label in written]
    middle = (x.start + x.end) / 2
    title = _write(middle, bottom + 34, plot.x_title, anchor="middle", class_="axis-title") if plot.x_title else None
    base = _line(x.start, bottom, x.end, bottom, "tick")
    return join([base, *ticks, *labels, *([title] if title else [])])


def _mark_rows(marks: Sequence[Mark], x_range: tuple[float, float], width: int) -> list[tuple[Mark, int]]:
    """Give each mark the first of three rows where its text has room; a fourth beside them has a line and no text."""
    x = Axis(*x_range, (), 54, width - 70)
    free_from = [0.0, 0.0, 0.0]
    placed: list[tuple[Mark, int]] = []
    for mark in sorted(marks, key=lambda mark: mark.x):
        half = len(mark.text) * _LETTER / 2
        row = next((row for row, free in enumerate(free_from) if x.place(mark.x) - half >= free), -1)
        if row >= 0:
            free_from[row] = x.place(mark.x) + half + 8
        placed.append((mark, row))
    return placed


def _mark_line(mark: Mark, row: int, x: Axis, top: float, bottom: float) -> Html:
    place = x.place(mark.x)
    line = _line(place, top - 2 - max(row, 0) * _LINE_HEIGHT, place, bottom, "mark-line")
    return element("g", element("title", mark.text), line, class_="mark")


def _mark_text(mark: Mark, row: int, x: Axis, top: float) -> Html:
    """Write what a mark means, over the lines of its neighbours."""
    return _write(x.place(mark.x), top - 5 - row * _LINE_HEIGHT, mark.text, anchor="middle", class_="mark-text")


def _series(series: Series, x: Axis, y: Axis) -> Html:
    places = [(x.place(point.x), y.place(point.y)) for point in series.points]
    band = _band(series.points, x, y)
    if series.shape == "line":
        path = element("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in places))
        alone = [element("circle", cx=f"{a:.1f}", cy=f"{b:.1f}", r=2.5) for a, b in places[:1] if len(places) == 1]
        return element("g", band, path, *alone, class_=f"series {series.style}")
    if series.shape == "diamonds":
        return element("g", *_diamonds(series, places, x), class_=f"series {series.style}")
    dots = [element("circle", cx=f"{a:.1f}", cy=f"{b:.1f}", r=2.5) for a, b in places]
    return element("g", band, *([] if band else dots), class_=f"series {series.style}")


def _band(points: Sequence[Point], x: Axis, y: Axis) -> Html | None:
    """Return the area between the smallest and the largest values where points stand for several."""
    if all(point.low == point.high for point in points):
        return None
    upper = [f"{x.place(point.x):.1f},{y.place(point.high):.1f}" for point in points]
    lower = [f"{x.place(point.x):.1f},{y.place(point.low):.1f}" for point in reversed(points)]
    return element("path", d="M" + " L".join([*upper, *lower]) + " Z", class_="band")


def _diamonds(series: Series, places: Sequence[tuple[float, float]], x: Axis) -> list[Html]:
    trail = element("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in places))
    shapes = [element("path", d=f"M{a:.1f},{b - 6:.1f} l6,6 l-6,6 l-6,-6 Z", class_="diamond") for a, b in places]
    values: list[Html] = []
    room_from = 0.0
    for (a, b), point in zip(places, series.points, strict=True):
        # The ends are always written; between them, a value only where it does not touch the one before.
        if a - 16 < room_from and point is not series.points[-1]:
            continue
        room_from = a + 20
        anchor = "start" if a < x.start + 16 else "end" if a > x.end - 16 else "middle"
        values.append(_write(a, b - 10, series.say(point.y), anchor=anchor, class_="value"))
    return [trail, *shapes, *values]


def _end_labels(all_series: Sequence[Series], x: Axis, y: Axis) -> Html:
    """Write each name beside the end of its line, moved down where two would touch."""
    named = [series for series in all_series if series.label and series.points]
    free_from = float("-inf")
    labels: list[Html] = []
    for series in sorted(named, key=lambda series: y.place(series.points[-1].y)):
        end = series.points[-1]
        place = max(y.place(end.y) + 4, free_from)
        free_from = place + _LINE_HEIGHT
        labels.append(_write(x.place(end.x) + 9, place, series.label, class_=f"label {series.style}"))
    return join(labels)


def _hover(plot: Plot, x: Axis, y: Axis, top: float, bottom: float) -> Html:
    """Lay a strip over each place that has values, with a title that says them; it lights up under the pointer."""
    said: dict[float, list[tuple[Series, Point]]] = {}
    for series in plot.series:
        for point in series.points:
            said.setdefault(point.x, []).append((series, point))
    places = sorted(said)
    middles = [(x.place(a) + x.place(b)) / 2 for a, b in itertools.pairwise(places)]
    strips = zip(places, [x.start - 8, *middles], [*middles, x.end + 8], strict=True) if places else []
    return join(_strip(plot.say_x(at), at, said[at], (x, y), (left, right, top, bottom)) for at, left, right in strips)


def _strip(
    where: str,
    at: float,
    said: Sequence[tuple[Series, Point]],
    axes: tuple[Axis, Axis],
    box: tuple[float, float, float, float],
) -> Html:
    x, y = axes
    left, right, top, bottom = box
    size = {"width": f"{max(right - left, 0):.1f}", "height": f"{bottom - top:.1f}"}
    title = element("title", f"{where}: " + ", ".join(_said(series, point) for series, point in said))
    rings = [element("circle", cx=f"{x.place(at):.1f}", cy=f"{y.place(point.y):.1f}", r=4.5) for _, point in said]
    area = element("rect", x=f"{left:.1f}", y=f"{top:.1f}", **size)
    return element("g", title, area, _line(x.place(at), top, x.place(at), bottom, "cross"), *rings, class_="at")


def _said(series: Series, point: Point) -> str:
    spread = f" ({series.say(point.low)} to {series.say(point.high)})" if point.low != point.high else ""
    return f"{series.name} {series.say(point.y)}{spread}"
