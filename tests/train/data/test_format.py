"""A row gives its fields or says what is wrong with them; a format is found by name, ours or a plug-in's."""

from __future__ import annotations

import pytest

from bedstone.core.errors import InvalidConfigError, UnknownNameError
from bedstone.train.config.schema import DatasetConfig
from bedstone.train.data import Alpaca, Chat, DataError, Row, StdlibDocstrings, format_of, formats


def row(**fields) -> Row:
    return Row(fields, "rows.jsonl:7")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"out": "x"}, "rows.jsonl:7 has no field 'answer'. It has: out."),
        ({}, "rows.jsonl:7 has no field 'answer'. It has: nothing."),
        ({"anwser": "x"}, "rows.jsonl:7 has no field 'answer'. Did you mean 'anwser'? It has: anwser."),
        ({"answer": 3}, "Field 'answer' of rows.jsonl:7 must be text, but is a number (3)."),
        ({"answer": None}, "Field 'answer' of rows.jsonl:7 must be text, but is null."),
        ({"answer": True}, "Field 'answer' of rows.jsonl:7 must be text, but is true."),
        ({"answer": ["a"]}, "Field 'answer' of rows.jsonl:7 must be text, but is a list of 1."),
        ({"answer": {"b": 1}}, "Field 'answer' of rows.jsonl:7 must be text, but is an object with b."),
    ],
)
def test_a_field_that_is_not_text_is_named_with_what_it_is(fields, message):
    """Row and field are in the sentence, and in the attributes."""
    with pytest.raises(DataError) as caught:
        row(**fields).text("answer")
    assert str(caught.value) == message
    assert (caught.value.source, caught.value.field) == ("rows.jsonl:7", "answer")


def test_a_missing_field_names_the_key_that_chose_it():
    """The remedy is in the configuration as often as in the file."""
    with pytest.raises(DataError) as caught:
        row(reply="x").text("output", key="field_output")
    assert str(caught.value) == (
        "rows.jsonl:7 has no field 'output'. It has: reply. Correct the file, or set `field_output` to the name it uses."
    )


def test_a_default_stands_for_an_absent_and_a_null_field_only():
    """Anything else must still be text."""
    assert row().text("input", default="") == row(input=None).text("input", default="") == ""
    with pytest.raises(DataError):
        row(input=3).text("input", default="")


@pytest.mark.parametrize(
    ("value", "found"), [([], "empty"), ("hi", "text ('hi')"), (None, "null"), ({}, "an object with nothing in it")]
)
def test_a_list_must_be_a_list_with_items(value, found):
    """An empty conversation is no conversation."""
    with pytest.raises(DataError) as caught:
        row(messages=value).items("messages")
    assert str(caught.value) == (
        f"Field 'messages' of rows.jsonl:7 must be a list with at least one item, but is {found}."
    )


def test_our_formats_are_registered():
    """Importing the package is enough."""
    assert {"alpaca": Alpaca, "chat_template": Chat, "stdlib_docstrings": StdlibDocstrings}.items() <= (
        formats.items().items()
    )


def test_an_unknown_type_lists_the_known_ones():
    """With the nearest first."""
    with pytest.raises(UnknownNameError) as caught:
        format_of(DatasetConfig(type="alpacca"))
    assert str(caught.value) == (
        "No data format is called 'alpacca'. Did you mean 'alpaca'? Known: alpaca, chat_template, stdlib_docstrings."
    )


def test_a_registered_thing_that_is_no_format_is_refused(monkeypatch):
    """A plug-in may point at anything."""
    monkeypatch.setitem(formats._members, "odd", 3)
    with pytest.raises(InvalidConfigError) as caught:
        format_of(DatasetConfig(type="odd"))
    assert str(caught.value) == "The data format 'odd' is 3, not a subclass of DataFormat."
