"""Alpaca rows: an instruction, often with an input, and the output to learn.

The text is the standard Alpaca prompt, whatever chat template the model has, as in axolotl: `type: alpaca` means this
prompt. An empty `output` is kept and teaches the model to end at once; a missing one is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.train.data.format import DataFormat, Row, Segment, formats
from bedstone.train.data.jsonl import read_jsonl
from bedstone.train.data.render import instruction_prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bedstone.train.config.schema import DatasetConfig
    from bedstone.train.data.render import ChatRenderer


@formats.register("alpaca")
class Alpaca(DataFormat):
    """JSONL with `instruction`, `input` (may be missing) and `output`; the `field_*` keys rename them."""

    def rows(self, dataset: DatasetConfig) -> Iterator[Row]:
        """Yield the rows of the file at `dataset.path`."""
        return read_jsonl(dataset)

    def render(self, row: Row, chat: ChatRenderer, dataset: DatasetConfig) -> list[Segment]:
        """Return the Alpaca prompt, shown, and the output with its end token, trained.

        Raises:
            DataError: Instruction or output is missing, or a field is not text.
        """
        instruction = row.text(dataset.field_instruction, key="field_instruction")
        context = row.text(dataset.field_input, default="", key="field_input")
        output = row.text(dataset.field_output, key="field_output")
        return [chat.prompt(instruction_prompt(instruction, context)), chat.answer(output)]

    def question(self, text: str, chat: ChatRenderer) -> str:
        """Return the Alpaca prompt without an input."""
        return chat.prompt(instruction_prompt(text)).text
