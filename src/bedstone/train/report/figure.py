"""Plots on a page: each drawn for a desk and for a phone, with the values under the pointer read out below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.train.report.markup import Html, element
from bedstone.train.report.svg import Plot, draw

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDE, _NARROW = 856, 328  # the width of the page's text on a desk, and on the smallest phones


def figure(plots: Sequence[Plot], caption: str) -> Html:
    """Return plots above one caption.

    Args:
        plots: From top to bottom; they share the caption and the readout.
        caption: What is drawn and how to read it, full sentences.

    >>> figure([], "Nothing.").count("readout")
    1
    """
    drawings = [
        draw(plot, width=width, class_=name) for plot in plots for width, name in ((_WIDE, "wide"), (_NARROW, "narrow"))
    ]
    # The readout repeats the hover texts for the eye; the same numbers stand in tables and in the drawings' labels.
    readout = element("p", class_="readout", aria_hidden="true")
    return element("figure", *drawings, readout, element("figcaption", caption))
