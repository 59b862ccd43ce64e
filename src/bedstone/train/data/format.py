r"""The contract of a data format: it reads rows, and says of each which text is shown and which is learnt.

A format answers two questions. `rows` says where rows come from; `render` turns one row into segments of text, each
trained or only shown. Everything after that (tokens, truncation, masks, batches) is the same for all formats, so a new
format is one file with one class:

    @formats.register("trivia")
    class Trivia(DataFormat):
        def rows(self, dataset): return read_jsonl(dataset)
        def render(self, row, chat, dataset):
            return [chat.prompt(row.text("question") + "\n"), chat.answer(row.text("answer"))]

Another package registers its class through an entry point of the group `bedstone.datasets`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import InvalidConfigError, nearest
from bedstone.core.registry import Registry
from bedstone.train.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bedstone.train.config.schema import DatasetConfig
    from bedstone.train.data.render import ChatRenderer

_SHOWN_CHARS = 40  # of a value in a message


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text, and whether the model learns to write it.

    Args:
        text: The text, special tokens written out.
        trained: True when its tokens count in the loss, False when they are only read.

    >>> Segment("What is 2 + 2?", trained=False).trained
    False
    """

    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was found.

    Args:
        fields: The row's values by name.
        source: Where it stands, for people: `rows.jsonl:12`.
    """

    fields: Mapping[str, Any]
    source: str

    def text(self, name: str, *, default: str | None = None, key: str = "") -> str:
        """Return a field that must be text.

        Args:
            name: The field.
            default: What an absent or `null` field means; `None` when the field must be there.
            key: The configuration key that chose `name`, for the message.

        Raises:
            DataError: The field is missing without a default, or is not text.

        >>> row = Row({"question": "Why?", "ansewr": "Because."}, "rows.jsonl:1")
        >>> row.text("question")
        'Why?'
        >>> row.text("answer")
        Traceback (most recent call last):
        bedstone.train.data.errors.DataError: rows.jsonl:1 has no field 'answer'. Did you mean 'ansewr'? It has: \
ansewr, question.
        """
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        if name not in self.fields:
            raise self._missing(name, key)
        if not isinstance(value, str):
            message = f"Field {name!r} of {self.source} must be text, but is {json_kind(value)}."
            raise DataError(message, source=self.source, field=name)
        return value

    def items(self, name: str, *, key: str = "") -> list[Any]:
        """Return a field that must be a list with at least one item.

        Args:
            name: The field.
            key: The configuration key that chose `name`, for the message.

        Raises:
            DataError: The field is missing, is not a list, or is empty.
        """
        if name not in self.fields:
            raise self._missing(name, key)
        value = self.fields[name]
        if not isinstance(value, list) or not value:
            found = "empty" if value == [] else json_kind(value)
            message = f"Field {name!r} of {self.source} must be a list with at least one item, but is {found}."
            raise DataError(message, source=self.source, field=name)
        return value

    def _missing(self, name: str, key: str) -> DataError:
        guess = nearest(name, self.fields)
        parts = [f"{self.source} has no field {name!r}."]
        parts += [f"Did you mean {guess!r}?"] if guess else []
        parts += [f"It has: {', '.join(sorted(self.fields)) or 'nothing'}."]
        remedy = f"Correct the file, or set `{key}` to the name it uses." if key else ""
        return DataError(" ".join(parts), source=self.source, field=name, remedy=remedy)


class DataFormat(ABC):
    """A way to write training rows down; made without arguments, holds no state."""

    @abstractmethod
    def rows(self, dataset: DatasetConfig) -> Iterator[Row]:
        """Yield the rows of a data set in a fixed order.

        Args:
            dataset: The entry of `datasets` in the configuration; `limit` is applied by the caller.

        Raises:
            DataError: A row cannot be read.
            StorageError: The file cannot be opened.
        """

    @abstractmethod
    def render(self, row: Row, chat: ChatRenderer, dataset: DatasetConfig) -> list[Segment]:
        """Return a row as segments of text, in order.

        Args:
            row: One of `rows`.
            chat: Writes turns with the model's chat template, and plain prompts and answers.
            dataset: The same entry as for `rows`.

        Raises:
            DataError: A field is missing or has the wrong type.
        """

    def question(self, text: str, chat: ChatRenderer) -> str:
        """Return what a model trained on this format is asked with, up to where its answer begins.

        Args:
            text: The question of a user.
            chat: As for `render`.

        Returns:
            The text with every special token written out; the model's chat form unless a format says otherwise.
        """
        return chat.question(text)


formats: Registry[type[DataFormat]] = Registry("data format", "bedstone.datasets")
"""Data formats by the name that `datasets[].type` gives; ours and those of installed plug-ins."""


def format_of(dataset: DatasetConfig) -> DataFormat:
    """Return the format that a data set names in `type`.

    Raises:
        UnknownNameError: No format has this name.
        PluginError: The plug-in of this name does not load.
        InvalidConfigError: What is registered is not a subclass of `DataFormat`.
    """
    found: Any = formats.get(dataset.type)
    if not (isinstance(found, type) and issubclass(found, DataFormat)):
        message = f"The data format {dataset.type!r} is {found!r}, not a subclass of DataFormat."
        raise InvalidConfigError(message, argument="type", value=dataset.type)
    return found()


def json_kind(value: object) -> str:
    """Say what a value read from JSON is, in words and shortened.

    >>> json_kind(3), json_kind(None), json_kind(["a"]), json_kind({"a": 1}), json_kind("x" * 99)
    ('a number (3)', 'null', 'a list of 1', 'an object with a', "text ('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...')")
    """
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"a number ({value})"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return f"an object with {', '.join(map(str, value)) or 'nothing in it'}"
        case _:
            text = str(value)
            return f"text ({text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + '...'!r})"
