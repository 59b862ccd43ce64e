"""The whole page: one file that needs nothing else, from the text of a run folder's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.train.report.document import document
from bedstone.train.report.history import history_section
from bedstone.train.report.learning import answers_section, loss_section, speed_section
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
    from bedstone.train.report.markup import Html
    from bedstone.train.report.read import RunFiles


def page(files: RunFiles) -> str:
    """Return the report as the text of one HTML file.

    Args:
        files: What lies in the run folder.

    >>> from bedstone.train.report.read import RunFiles
    >>> page(RunFiles(name="demo", records=())).splitlines()[0]
    '<!DOCTYPE html>'
    """
    story = tell(files.records)
    return document(
        title=f"{run_name(files, story)}: bedstone run report",
        description=verdict(story).text,
        content=[opening(files, story), *_sections(files, story)],
        footer=_footer(files),
    )


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


def _footer(files: RunFiles) -> str:
    notes = [f"Written by bedstone from config.yaml, manifest.json and {say_plural(len(files.records), 'event')}."]
    if files.torn:
        notes.append("The last line of events.jsonl was cut off, as a kill leaves it, and is left out.")
    if files.unreadable:
        notes.append(f"Left out, because not readable: {say_plural(files.unreadable, 'line')} of events.jsonl.")
    return " ".join(notes)
