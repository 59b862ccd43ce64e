"""HTML and SVG as values that cannot be mixed up with text: what is not `Html` is escaped when it goes in.

A page made of files that anybody may have written needs escaping as the rule, not as a habit. So there is one type for
finished markup, one function that makes it, and every child or attribute of another type is text.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# What HTML forbids or UTF-8 cannot hold: control characters, lone surrogates and the two non-characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_VOID = frozenset({"meta", "br", "rect", "line", "circle", "path", "polyline"})


class Html(str):
    """Finished markup; `element` puts it in as it is."""

    __slots__ = ()


def escaped(value: object) -> Html:
    r"""Return a value as markup: `Html` as it is, anything else as text with its special characters escaped.

    Characters that a page cannot hold become the replacement character.

    >>> escaped("</script> & \"")
    '&lt;/script&gt; &amp; &quot;'
    >>> escaped(Html("<br>"))
    '<br>'
    """
    if isinstance(value, Html):
        return value
    return Html(html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value))))


def join(parts: Iterable[object]) -> Html:
    """Return the parts as markup, one after the other.

    >>> join(["a < b", Html("<br>")])
    'a &lt; b<br>'
    """
    return Html("".join(escaped(part) for part in parts))


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """Return an element with its children and attributes.

    Args:
        name: The element's name, for example `td`.
        children: Markup or text; text is escaped, `None` is left out.
        attributes: A trailing `_` is cut off and other `_` become `-`, so `class_` and `aria_label` work. `None` leaves
            an attribute out, `True` writes it without a value.

    >>> element("p", "1 < 2", class_="note", hidden=True)
    '<p class="note" hidden>1 &lt; 2</p>'
    >>> element("rect", width=3)
    '<rect width="3"/>'
    """
    shown = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    written = "".join(f" {key}" if value is True else f' {key}="{escaped(value)}"' for key, value in shown.items())
    if name in _VOID:
        return Html(f"<{name}{written}/>")
    inside = join(child for child in children if child is not None)
    return Html(f"<{name}{written}>{inside}</{name}>")


def foreign(value: object) -> Html:
    """Return text from outside, isolated, so that its writing direction does not turn the words around it.

    >>> foreign("abc")
    '<bdi>abc</bdi>'
    """
    return element("bdi", value)
