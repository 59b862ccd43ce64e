"""What the collector takes for an answer, which names it prefers, and what counts as a repetition."""

from __future__ import annotations

import types

import pytest

from bedstone.train.data.stdlib_collector import found_in, members, module_names, split, summary


@pytest.mark.parametrize(
    ("doc", "answer"),
    [
        ("Return the sum of all items.\n\nMore about it.", "Return the sum of all items."),
        ("sum(items) -> number\n\nReturn the sum of all items.", "Return the sum of all items."),
        ("Return the\n    sum of all\n    items. And then stop.", "Return the sum of all items. And then stop."),
        ("Return the sum of all items. " + "X" * 300 + ".", "Return the sum of all items."),
        ("Too short.", None),
        ("Without a full stop at the end", None),
        (">>> sum([1, 2]) is an example.", None),
        ("sum(items) -> number", None),
        ("", None),
        (None, None),
        (42, None),
    ],
)
def test_an_answer_is_the_first_whole_sentences(doc, answer):
    """Without signature, of 20 to 300 characters."""
    assert summary(doc) == answer


def test_members_are_public_and_owned_or_exported():
    """What a module merely imported belongs to another."""
    module = types.ModuleType("acme")
    exec("from json import dumps, loads\n__all__ = ['dumps']\ndef own(): ...\ndef _private(): ...\n", module.__dict__)
    exec("class Thing:\n  def method(self): ...\n  @staticmethod\n  def static(): ...\n", module.__dict__)
    assert [name for name, _ in members(module)] == ["Thing", "Thing.method", "Thing.static", "dumps", "own"]


def test_a_module_of_another_platform_has_no_rows():
    """It is no failure either."""
    assert list(found_in("no_such_module_anywhere")) == []


def test_modules_that_act_on_import_are_left_out():
    """`antigravity` opens a browser, `this` prints."""
    names = set(module_names())
    assert {"json", "json.decoder", "os.path", "asyncio.tasks"} <= names
    assert names.isdisjoint({"antigravity", "this", "idlelib", "tkinter", "encodings.utf_8", "test"})


def test_held_out_answers_that_repeat_training_are_dropped():
    """Seven shared words of ten are a repetition. `json` is held out by its hash, `os` is not."""
    words = "a b c d e f g"
    rows = [
        {"question": "1", "answer": f"{words} h i", "module": "os"},
        {"question": "2", "answer": f"{words} j", "module": "json"},  # 7 of 10
        {"question": "3", "answer": f"{words} j k", "module": "json"},  # 7 of 11
    ]
    assert {part: [row["question"] for row in kept] for part, kept in split(rows).items()} == {
        "train": ["1"],
        "heldout": ["3"],
    }
