"""Flashcards as training data: a tab-separated file with the columns `question` and `answer`, one card a line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from bedstone.core.errors import StorageError
from bedstone.train.data import DataFormat, Row, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bedstone.train.config import DatasetConfig
    from bedstone.train.data import ChatRenderer


class Flashcards(DataFormat):
    """The question is shown, the answer is learnt, both in the chat template of the model."""

    def rows(self, dataset: DatasetConfig) -> Iterator[Row]:
        """Yield the cards of the file at `dataset.path`."""
        try:
            with Path(dataset.path).open(encoding="utf-8", newline="") as file:
                for fields in (reader := csv.DictReader(file, delimiter="\t")):
                    yield Row(fields, f"{dataset.path}:{reader.line_num}")
        except OSError as error:
            raise StorageError.from_os_error(error, path=dataset.path, doing="read the flashcards") from error

    def render(self, row: Row, chat: ChatRenderer, dataset: DatasetConfig) -> list[Segment]:
        """Return one turn of the user and one of the assistant; a missing column is named by `row.text`."""
        del dataset  # has nothing more to say for this format
        return chat.dialogue(row.text("question"), row.text("answer"), source=row.source)
