"""The standard library's docstrings are the same rows every time, split by module, and collected out of process."""

from __future__ import annotations

import random
import sys
import warnings

import pytest
import torch

from bedstone.core.errors import InvalidConfigError
from bedstone.train.config.schema import DatasetConfig
from bedstone.train.data import ChatRenderer, StdlibDocstrings
from bedstone.train.data import stdlib_docstrings as module


def rows(**keys):
    return list(StdlibDocstrings().rows(DatasetConfig(type="stdlib_docstrings", **keys)))


def test_gives_about_3500_training_rows_and_650_held_out():
    """Of 3.10 to 3.13 and many builds; the exact number belongs to one build."""
    assert 3_300 < len(rows(split="train")) < 3_700
    assert 600 < len(rows(split="heldout")) < 720
    assert [row.source for row in rows()[:2]] == ["stdlib_docstrings[train]:1", "stdlib_docstrings[train]:2"]


def test_holds_whole_modules_out():
    """No module is on both sides, and no question or answer appears twice."""
    train, held = rows(split="train"), rows(split="heldout")
    assert {row.fields["module"] for row in train}.isdisjoint(row.fields["module"] for row in held)
    assert {"json", "logging", "collections"} <= {row.fields["module"] for row in held}
    for name in ("question", "answer"):
        values = [row.fields[name] for row in train + held]
        assert len(set(values)) == len(values)


def test_rows_are_questions_and_sentences():
    """Short enough for any model, and whole."""
    by_question = {row.fields["question"]: row.fields["answer"] for row in rows(split="heldout")}
    assert by_question["What does `json.load` do in Python?"] == (
        "Deserialize ``fp`` (a ``.read()``-supporting file-like object containing a JSON document) to a Python object."
    )
    for row in rows():
        assert 20 <= len(row.fields["answer"]) <= 300
        assert row.fields["answer"][-1] in ".!?)"


def test_collecting_leaves_this_process_alone(tmp_path, monkeypatch, capfd):
    """Nothing is imported, changed or printed here; a file in the current folder replaces no module; rows are the same."""
    first = rows()
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    module._collected.cache_clear()
    before = set(sys.modules), list(warnings.filters), random.getstate(), torch.get_rng_state().tolist()
    assert rows() == first
    assert (set(sys.modules), list(warnings.filters), random.getstate(), torch.get_rng_state().tolist()) == before
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == [tmp_path / "json.py"]


def test_asks_in_the_models_own_way(chat, plain_tokenizer):
    """The chat template where there is one, else the Alpaca prompt."""
    dataset = DatasetConfig(type="stdlib_docstrings")
    row = next(StdlibDocstrings().rows(dataset))
    question, answer = row.fields["question"], row.fields["answer"]
    shown, trained, rest = StdlibDocstrings().render(row, chat, dataset)
    assert shown.text == f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    assert (trained.text, rest.text) == (f"{answer}<|im_end|>", "\n")
    plain = ChatRenderer(plain_tokenizer)
    shown, trained = StdlibDocstrings().render(row, plain, dataset)
    assert shown.text == plain.question(question)
    assert trained.text == f"{answer}<|im_end|>"


def test_refuses_another_part_and_a_path():
    """Neither is ignored."""
    with pytest.raises(InvalidConfigError) as caught:
        rows(split="held_out")
    assert str(caught.value) == (
        "`split` (='held_out') of stdlib_docstrings must be 'train' or 'heldout'. Did you mean 'heldout'?"
    )
    with pytest.raises(InvalidConfigError) as caught:
        rows(path="rows.jsonl")
    assert str(caught.value) == (
        "`path` (='rows.jsonl') has no meaning for stdlib_docstrings, which reads no file. Leave it out."
    )
