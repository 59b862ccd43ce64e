"""In a real browser the page of a packed model draws every layer, asks nobody for anything, and fits a phone.

Skipped without Chromium, as the tests of the run report are.
"""

from __future__ import annotations

import re

import pytest

from bedstone.train.quantize.report import page

from ..report.test_browser import (  # noqa: TID252 - the same browser
    PHONE_WIDTH,
    _needs_a_browser,  # noqa: F401 - pytest finds it here
    browse,  # noqa: F401
    facts_in,
    on_a_phone,
    with_probe,
)
from .example_outcome import HOSTILE, compared, outcome


def test_draws_every_layer_in_a_browser(tmp_path, browse):  # noqa: F811
    """A dot a layer, a line a text, all with a colour; the readout names the layer; the console stays silent."""
    (tmp_path / "report.html").write_text(page(outcome()), encoding="utf-8")
    dom, console = browse(with_probe(tmp_path / "report.html"))
    facts = facts_in(dom)
    assert console == []
    assert (facts["past"], facts["labels"], facts["requests"]) == ([], [], [])
    assert set(facts["kinds"]) == {"wide"}
    lines, dots = re.findall(r'<svg[^>]*class="wide".*?</svg>', dom, re.DOTALL)
    assert lines.count("<polyline") == 2
    assert len(re.findall(r'<circle[^>]*r="2.5"', dots)) == 24


@pytest.mark.parametrize("changes", [{}, {"model": HOSTILE, "texts": (compared(HOSTILE),)}], ids=["usual", "hostile"])
def test_fits_a_phone(tmp_path, browse, changes):  # noqa: F811
    """At 360 pixels nothing sticks out."""
    (tmp_path / "report.html").write_text(page(outcome(**changes)), encoding="utf-8")
    facts = on_a_phone(tmp_path / "report.html", browse)
    assert facts["width"] == PHONE_WIDTH
    assert facts["scroll"] <= facts["width"]
    assert (facts["past"], facts["labels"], facts["requests"]) == ([], [], [])
    assert set(facts["kinds"]) == {"narrow"}
