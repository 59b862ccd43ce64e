"""Shows the `>>>` examples of our docstrings as code; Markdown alone would read them as nested quotations."""  # noqa: INP001 - mkdocs loads it by its path

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from griffe import Extension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from griffe import Object


class DoctestBlocks(Extension):
    """Puts a fence around every example, from its first `>>>` to the end of its expected output."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one module, class, function or attribute."""
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = "\n".join(fenced(obj.docstring.value.splitlines()))


def fenced(lines: list[str]) -> Iterator[str]:
    """Yield the lines with each block of examples in a fence; a blank line ends a block, as it ends expected output.

    >>> list(fenced(["Adds.", "", ">>> 1 + 1", "2", "", "After."]))
    ['Adds.', '', '```pycon', '>>> 1 + 1', '2', '```', '', 'After.']
    """
    inside = False
    for line in lines:
        if not inside and line.startswith(">>> "):
            inside = True
            yield "```pycon"
        elif inside and not line.strip():
            inside = False
            yield "```"
        yield "" if inside and line.strip() == "<BLANKLINE>" else line
    if inside:
        yield "```"
