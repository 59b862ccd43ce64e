"""A JSONL file from rows, and the tiny tokenizer with its renderer."""

from __future__ import annotations

import json

import pytest

from bedstone.testing.tiny import tiny_tokenizer
from bedstone.train.data import ChatRenderer


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def plain_tokenizer():
    """The tokenizer of a base model: no chat template."""
    return tiny_tokenizer(chat_template=None)


@pytest.fixture(scope="session")
def chat(tokenizer):
    return ChatRenderer(tokenizer)


@pytest.fixture
def jsonl(tmp_path, monkeypatch):
    """Writes rows into `rows.jsonl` of the current folder and returns that name; a string is written as it is."""
    monkeypatch.chdir(tmp_path)

    def write(*rows, name="rows.jsonl"):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_bytes("".join(line + "\n" for line in lines).encode())
        return name

    return write
