"""A data format of your own: one class with two methods, then every data set of that type trains like any other.

The rows are trivia cards. The question and the possible answers are shown to the model; only the right answer is learnt.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bedstone.testing import tiny_tokenizer
from bedstone.train.config.schema import DatasetConfig
from bedstone.train.data import IGNORED, DataError, DataFormat, Row, Segment, formats, load_split, read_jsonl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bedstone.train.data import ChatRenderer

CARDS = [
    {"question": "Which planet is the largest?", "choices": ["Mars", "Jupiter"], "answer": "Jupiter"},
    {"question": "How many legs has a spider?", "choices": ["6", "8"], "answer": "8"},
]


@formats.register("trivia")
class Trivia(DataFormat):
    """JSONL with `question`, `choices` and `answer`."""

    def rows(self, dataset: DatasetConfig) -> Iterator[Row]:
        """Yield the rows of the file at `dataset.path`."""
        return read_jsonl(dataset)

    def render(self, row: Row, chat: ChatRenderer, dataset: DatasetConfig) -> list[Segment]:
        """Show the card, train the answer; `dialogue` asks in the model's chat template."""
        choices, answer = row.items("choices"), row.text("answer")
        if answer not in choices:
            message = f"{row.source}: the answer {answer!r} is none of the choices."
            raise DataError(message, source=row.source, field="answer")
        question = f"{row.text('question')} ({' or '.join(choices)})"
        return chat.dialogue(question, answer, source=row.source)


def write(folder: str, cards: list[dict[str, object]]) -> DatasetConfig:
    path = Path(folder) / "cards.jsonl"
    path.write_text("".join(json.dumps(card) + "\n" for card in cards), encoding="utf-8")
    return DatasetConfig(type="trivia", path=str(path))


def main() -> None:
    tokenizer = tiny_tokenizer()  # stands for the tokenizer of any model
    with tempfile.TemporaryDirectory() as folder:
        split = load_split([write(folder, CARDS)], tokenizer)
        print(split.report)
        for example in split.examples:
            learnt = [label for label in example.labels if label != IGNORED]
            print(f"{Path(example.source).name} shows {len(example.labels) - len(learnt)} tokens")
            print(f"  and trains {tokenizer.decode(learnt)!r}")
        broken = [*CARDS, {"question": "What barks?", "choices": ["cat"], "answer": "dog"}]
        try:
            load_split([write(folder, broken)], tokenizer)
        except DataError as error:
            print("Refused:", str(error).removeprefix(f"{folder}/"))


if __name__ == "__main__":
    main()
