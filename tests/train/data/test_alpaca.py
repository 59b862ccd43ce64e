"""Alpaca rows become the standard prompt, shown, and the output with its end token, trained."""

from __future__ import annotations

import pytest

from bedstone.train.config.schema import DatasetConfig
from bedstone.train.data import Alpaca, DataError, Row, Segment

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nAdd.\n\n### Input:\n2, 3\n\n### Response:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nAdd.\n\n### Response:\n"
)


def render(chat, fields, **keys):
    return Alpaca().render(Row(fields, "rows.jsonl:1"), chat, DatasetConfig(type="alpaca", path="rows.jsonl", **keys))


def test_shows_the_standard_prompt_and_trains_the_output(chat):
    """The chat template plays no part."""
    assert render(chat, {"instruction": "Add.", "input": "2, 3", "output": "5"}) == [
        Segment(WITH_INPUT, trained=False),
        Segment("5<|im_end|>", trained=True),
    ]


@pytest.mark.parametrize("absent", [{}, {"input": ""}, {"input": None}])
def test_has_a_shorter_prompt_without_input(chat, absent):
    """Absent, empty and null are the same."""
    assert render(chat, {"instruction": "Add.", "output": "5"} | absent)[0] == Segment(WITHOUT_INPUT, trained=False)


def test_fields_can_be_renamed(chat):
    """By the three keys of the configuration."""
    fields = {"q": "Add.", "with": "2, 3", "a": "5"}
    keys = {"field_instruction": "q", "field_input": "with", "field_output": "a"}
    assert "".join(s.text for s in render(chat, fields, **keys)) == WITH_INPUT + "5<|im_end|>"


def test_braces_in_a_row_are_plain_text(chat):
    """A prompt built with str.format would fail or leak."""
    assert "{instruction} {0}" in render(chat, {"instruction": "{instruction} {0}", "output": "5"})[0].text


def test_a_missing_output_is_no_empty_output(chat):
    """Missing is an error; empty teaches the model to end."""
    with pytest.raises(DataError) as caught:
        render(chat, {"instruction": "Add.", "answer": "5"})
    assert str(caught.value) == (
        "rows.jsonl:1 has no field 'output'. It has: answer, instruction. "
        "Correct the file, or set `field_output` to the name it uses."
    )
    assert render(chat, {"instruction": "Add.", "output": ""})[1] == Segment("<|im_end|>", trained=True)
