"""One self-contained HTML file: what every page of ours has around its content.

Its content security policy forbids every request, so a page made from a stranger's files cannot call home either. Style and
script lie beside this module as files of their own kind and are written into the page.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from bedstone.train.report.markup import Html, element

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def document(*, title: str, description: str, content: Iterable[Html], footer: str) -> str:
    """Return the text of an HTML file that needs nothing else.

    Args:
        title: For the window and for bookmarks.
        description: One sentence for search engines and previews.
        content: The header and the sections, from top to bottom.
        footer: How the page came about, full sentences.

    >>> document(title="demo", description="A demo.", content=[], footer="Made by hand.").splitlines()[0]
    '<!DOCTYPE html>'
    """
    body = element("body", element("main", *content), element("footer", footer), _script())
    return f"<!DOCTYPE html>\n{element('html', _head(title, description), body, lang='en')}\n"


def _head(title: str, description: str) -> Html:
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=CONTENT_SECURITY_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="description", content=description),
        element("title", title),
        element("style", Html(_beside("report.css"))),
    )


def _script() -> Html:
    return element("script", Html(_beside("report.js")))


def _beside(name: str) -> str:
    return resources.files("bedstone.train.report").joinpath(name).read_text(encoding="utf-8")
