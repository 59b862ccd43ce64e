"""In a real browser the report draws its plots, answers the pointer, fits a phone and asks nobody for anything.

Without Chromium these tests are skipped; with BEDSTONE_REQUIRE_BROWSER=1, as in continuous integration, they fail.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from bedstone.train.report import write_report

from . import example_run as example

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--v=0", "--window-size=1200,2400"),
    "--virtual-time-budget=3000",
]
PHONE_WIDTH = 360
# Chromium's window is never narrower than 500 pixels, so the phone is a frame; a frame from a file may only send messages.
PHONE = """<!DOCTYPE html><iframe src="{page}" width="{width}" height="800" style="border:0"></iframe>
<pre id="facts"></pre><script>onmessage = (event) => {{ facts.textContent = JSON.stringify(event.data); }};</script>"""
PROBE = """<script>addEventListener("load", () => {
  const shown = [...document.querySelectorAll("svg")].filter((svg) => svg.getBoundingClientRect().width > 0);
  const past = [...document.querySelectorAll("body *")].filter((one) => !one.closest(".scroll") && !one.closest("svg")
    && one.getBoundingClientRect().right > innerWidth + 1);
  const labels = [...document.querySelectorAll("svg text")].filter((text) => {
    const box = text.getBoundingClientRect(), frame = text.ownerSVGElement.getBoundingClientRect();
    return box.width > 0 && (box.left < frame.left - 1 || box.right > frame.right + 1);
  });
  const facts = {
    scroll: document.documentElement.scrollWidth, width: innerWidth, kinds: shown.map((svg) => svg.getAttribute("class")),
    past: past.map((one) => one.tagName), labels: labels.map((one) => one.textContent),
    text: Math.min(...shown.map((svg) => 12 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)),
  };
  const strip = shown[0] && shown[0].querySelector(".at");
  if (strip) strip.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  facts.readout = strip ? document.querySelector(".readout").textContent : "";
  facts.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  const place = document.createElement("pre");
  place.id = "facts";
  place.textContent = JSON.stringify(facts);
  document.body.append(place);
  if (parent !== window) parent.postMessage(facts, "*");
});</script>"""


@pytest.fixture(autouse=True)
def _needs_a_browser():
    if BROWSER is None:
        reason = f"No browser found (looked for {', '.join(NAMES)}); install chromium to check the report in one."
        if os.environ.get("BEDSTONE_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def browse(tmp_path):
    """A function that opens a file in the browser and returns the finished page and what the console said."""

    def opened(path: Path) -> tuple[str, list[str]]:
        assert BROWSER is not None
        profile = tmp_path / "profile"
        command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", path.resolve().as_uri()]
        environment = os.environ | {"HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, timeout=120, check=True, env=environment)
        console = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
        return done.stdout.decode(), console

    return opened


def with_probe(page: Path) -> Path:
    """Write a copy of a report that also measures itself."""
    text = page.read_text(encoding="utf-8")
    copy = page.with_name("probed.html")
    head, end = text.rsplit("</body>", 1)
    copy.write_text(f"{head}{PROBE}</body>{end}", encoding="utf-8")
    return copy


def facts_in(dom: str) -> dict:
    """Return what the probe measured."""
    found = re.search(r'<pre id="facts">(.*?)</pre>', dom, re.DOTALL)
    assert found
    assert found.group(1), "the page never finished"
    return json.loads(html.unescape(found.group(1)))


def on_a_phone(page: Path, browse) -> dict:
    """Return what the probe measures in a frame as wide as a phone."""
    frame = page.with_name("phone.html")
    frame.write_text(PHONE.format(page=with_probe(page).name, width=PHONE_WIDTH), encoding="utf-8")
    dom, console = browse(frame)
    assert console == []
    return facts_in(dom)


def hostile_run() -> list[dict]:
    """Return a run with words wider than any screen, and markup, in every text."""
    text = "</script><img src=x onerror=alert(1)>\u202e" + "w" * 2000
    return [
        {k: text if isinstance(v, str) and k != "event" else v for k, v in one.items()} for one in example.whole_run()
    ]


def test_draws_every_step_without_a_complaint(tmp_path, browse):
    """The drawn curve has a point for each step and evaluation, and the console stays silent."""
    dom, console = browse(write_report(example.write_run(tmp_path / "demo", example.whole_run())))
    assert console == []
    drawing = dom[dom.index("<svg") : dom.index("</svg>")]
    assert drawing.count('class="at"') == 37
    assert drawing.count('class="diamond"') == 2
    dots = re.search(r'class="series train">(.*?)</g>', drawing, re.DOTALL)
    assert dots
    assert dots.group(1).count("<circle") == 36
    assert "Point at the plot to read its values." in dom


def test_fits_a_desk(tmp_path, browse):
    """The wide drawings are shown, nothing overflows, the pointer's place is read out, nothing is requested."""
    dom, console = browse(with_probe(write_report(example.write_run(tmp_path / "demo", example.whole_run()))))
    facts = facts_in(dom)
    assert console == []
    assert facts["scroll"] <= facts["width"]
    assert set(facts["kinds"]) == {"wide"}
    assert (facts["past"], facts["labels"], facts["requests"]) == ([], [], [])
    assert facts["readout"] == "step 0: held-out loss 3.810"


@pytest.mark.parametrize("run", [example.whole_run, hostile_run, list], ids=["whole", "hostile", "empty"])
def test_fits_a_phone(tmp_path, browse, run):
    """At 360 pixels nothing sticks out, not even words without end, and the text of the plots stays readable."""
    facts = on_a_phone(write_report(example.write_run(tmp_path / "demo", run())), browse)
    assert facts["width"] == PHONE_WIDTH
    assert facts["scroll"] <= facts["width"]
    assert facts["past"] == []
    assert facts["labels"] == []
    assert facts["requests"] == []
    if run is not list:
        assert set(facts["kinds"]) == {"narrow"}
        assert facts["text"] >= 11  # pixels; the frame has a scroll bar, a phone has none


def test_the_policy_stops_what_would_leave_the_page(tmp_path, browse):
    """Even markup that got in could not load anything: the browser refuses and says so."""
    page = write_report(example.write_run(tmp_path / "demo", example.whole_run()))
    attack = '<img src="https://example.invalid/x.png"><video src="https://example.invalid/x.mp4"></video></body>'
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", attack), encoding="utf-8")
    _, console = browse(page)
    assert len(console) == 2
    assert all("violates the following Content Security Policy directive" in line for line in console)
