"""Tables with a caption, numbers aligned, wide ones scrolling in their own box instead of moving the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bedstone.train.report.markup import Html, element

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Number:
    """A cell that is aligned as a number.

    >>> str(Number("1.5"))
    '1.5'
    """

    text: str

    def __str__(self) -> str:
        return self.text


def table(caption: str, head: Sequence[object], rows: Iterable[Sequence[object]], *, class_: str | None = None) -> Html:
    """Return a table whose first column names its rows.

    Args:
        caption: What the table shows, a sentence.
        head: The columns' titles; a `Number` aligns with its column.
        rows: As many cells each.
        class_: Class of the table.

    >>> str(table("Sums.", ["a", Number("b")], [["x", Number("1")]]).count('class="number"'))
    '2'
    """
    titles = element("tr", *(element("th", cell, scope="col", class_=_class(cell)) for cell in head))
    body = [
        element(
            "tr",
            element("th", row[0], scope="row", class_=_class(row[0])),
            *(element("td", cell, class_=_class(cell)) for cell in row[1:]),
        )
        for row in rows
    ]
    shown = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", titles),
        element("tbody", *body),
        class_=class_,
    )
    return element("div", shown, class_="scroll", role="region", aria_label=caption, tabindex=0)


def folded(summary: object, *content: object) -> Html:
    """Return content that opens on a click."""
    return element("details", element("summary", summary), *content)


def _class(cell: object) -> str | None:
    return "number" if isinstance(cell, Number) else None
