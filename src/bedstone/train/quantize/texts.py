"""The texts that a packed model is measured on: files, or one that comes with every Python.

The one without a file is Python's own language reference, as `help()` shows it: half a megabyte of careful prose on every
machine, without a network. A model has most likely read it in training, so its perplexity there says little about the model; how far
packing moves the predictions can be seen on any text, and better on your own.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bedstone.core.errors import InvalidConfigError, StorageError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

_TOPICS = ("execmodel", "objects", "import", "specialnames", "compound", "types")
_BYTES_A_TOKEN = 64  # far more than any tokenizer takes for a token of running text


@dataclass(frozen=True, slots=True)
class Text:
    """A text with the name that it has in tables.

    Attributes:
        name: The file's name, or what the text is.
        content: Its beginning, long enough for the tokens that were asked for.
    """

    name: str
    content: str


def read_texts(paths: Iterable[str | os.PathLike[str]], tokens: int) -> list[Text]:
    """Return the beginnings of text files, or Python's language reference when there is no file.

    Args:
        paths: UTF-8 files.
        tokens: How many tokens will be taken from each.

    Raises:
        StorageError: A file does not exist or cannot be read.
        InvalidConfigError: A file is empty or not UTF-8.

    >>> [text] = read_texts([], tokens=512)
    >>> text.content.startswith("Execution model")
    True
    """
    texts = [_read(Path(path), tokens * _BYTES_A_TOKEN) for path in paths]
    return texts or [_language_reference(tokens * _BYTES_A_TOKEN)]


def _read(path: Path, most_bytes: int) -> Text:
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes)
    except OSError as error:
        raise StorageError.from_os_error(error, path=path, doing="read the text") from error
    try:
        # A character that the last byte cuts in two is left out.
        text = content.decode("utf-8", "strict" if len(content) < most_bytes else "ignore")
    except UnicodeDecodeError as error:
        message = f"The text {path} is not UTF-8: byte {content[error.start]:#04x} at position {error.start:,}."
        raise InvalidConfigError(message, argument="text", value=str(path), remedy="Convert it.") from error
    if not text.strip():
        message = f"The text {path} is empty."
        raise InvalidConfigError(message, argument="text", value=str(path), remedy="Give a text of some pages.")
    return Text(path.name, text)


def _language_reference(most: int) -> Text:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        message = "This Python was installed without the text that `bedstone quantize` measures on (pydoc_data)."
        raise InvalidConfigError(message, argument="text", remedy="Give one: --text FILE.") from error
    content = "\n".join(topics[name] for name in _TOPICS if name in topics)
    return Text(f"Python {platform.python_version()} language reference", content[:most])
