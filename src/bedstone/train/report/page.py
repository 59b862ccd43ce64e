"""The whole page: one file that needs nothing else, from the text of a run folder's files.

Its content security policy forbids every request, so a page from a stranger's run cannot call home either. Style and
script lie beside this module as files of their own kind and are written into the page.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from bedstone.train.report.history import history_section
from bedstone.train.report.learning import answers_section, loss_section, speed_section
from bedstone.train.report.markup import Html, element, join
from bedstone.train.report.opening import opening, run_name, verdict
from bedstone.train.report.provenance import (
    config_section,
    data_section,
    device_section,
    manifest_section,
    usage_section,
)
from bedstone.train.report.story import Story, tell
from bedstone.train.report.wording import say_plural

if TYPE_CHECKING:
    from bedstone.train.report.read import RunFiles

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def page(files: RunFiles) -> str:
    """Return the report as the text of one HTML file.

    Args:
        files: What lies in the run folder.

    >>> from bedstone.train.report.read import RunFiles
    >>> page(RunFiles(name="demo", records=())).splitlines()[0]
    '<!DOCTYPE html>'
    """
    story = tell(files.records)
    body = element("main", opening(files, story), *_sections(files, story))
    script = element("script", Html(_beside("report.js")))
    document = element("html", _head(files, story), element("body", body, _footer(files), script), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def _sections(files: RunFiles, story: Story) -> list[Html]:
    return [
        loss_section(story),
        answers_section(story),
        usage_section(story),
        speed_section(story),
        data_section(story),
        device_section(story),
        history_section(story),
        config_section(files),
        manifest_section(files),
    ]


def _head(files: RunFiles, story: Story) -> Html:
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=CONTENT_SECURITY_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="description", content=verdict(story).text),
        element("title", f"{run_name(files, story)}: bedstone run report"),
        element("style", Html(_beside("report.css"))),
    )


def _footer(files: RunFiles) -> Html:
    notes = [f"Written by bedstone from config.yaml, manifest.json and {say_plural(len(files.records), 'event')}."]
    if files.torn:
        notes.append("The last line of events.jsonl was cut off, as a kill leaves it, and is left out.")
    if files.unreadable:
        notes.append(f"Left out, because not readable: {say_plural(files.unreadable, 'line')} of events.jsonl.")
    return element("footer", join([" ".join(notes)]))


def _beside(name: str) -> str:
    return resources.files("bedstone.train.report").joinpath(name).read_text(encoding="utf-8")
