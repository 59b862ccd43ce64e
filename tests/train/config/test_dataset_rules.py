"""A data set entry names a format that exists, has the file that it reads, and no key that it does not read."""

from __future__ import annotations

import sys

import pytest

from bedstone.core.errors import InvalidConfigError
from bedstone.train.config import DatasetConfig, parse_config
from bedstone.train.config.dataset_rules import FORMAT_KEYS, idle_dataset_keys
from bedstone.train.data import formats


def refusal(*datasets: dict, **keys) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        parse_config({"base_model": "models/tiny", "datasets": list(datasets)} | keys)
    return str(caught.value)


def test_the_table_names_our_formats_and_keys_that_exist():
    """A format that is added to `train/data` gets its row here."""
    ours = {name for name, member in formats.items().items() if member.__module__.startswith("bedstone.")}
    assert set(FORMAT_KEYS) == ours
    assert frozenset().union(*FORMAT_KEYS.values()) <= set(DatasetConfig.model_fields)


def test_an_unknown_type_lists_the_known_ones():
    """With the nearest name."""
    assert refusal({"type": "alpacca", "path": "a.jsonl"}) == (
        "datasets[0].type: No data format is called 'alpacca'. Did you mean 'alpaca'? "
        f"Known: {', '.join(sorted(formats.names()))}."
    )


@pytest.mark.parametrize("kind", ["alpaca", "chat_template"])
def test_a_format_that_reads_a_file_needs_a_path(kind):
    """Said before anything is loaded."""
    assert refusal({"type": kind}) == (
        f"datasets[0].path: is missing: the type {kind} reads a file. Give the path of a file with one JSON object a line."
    )


def test_a_key_that_the_format_does_not_read_is_refused():
    """In `test_datasets` as well; the keys that it does read are listed."""
    assert refusal({"type": "alpaca", "path": "a.jsonl", "field_messages": "turns"}) == (
        "datasets[0].field_messages: has no effect: the type alpaca does not read it. "
        "Remove it; this type reads `field_input`, `field_instruction`, `field_output`, `path`."
    )
    assert refusal({"type": "stdlib_docstrings"}, test_datasets=[{"type": "stdlib_docstrings", "path": "a.jsonl"}]) == (
        "test_datasets[0].path: has no effect: the type stdlib_docstrings does not read it. "
        "Remove it; this type reads `split`."
    )


def test_an_empty_key_and_a_limit_are_accepted():
    """Every format has `limit`; an empty key asks for nothing."""
    entry = {"type": "chat_template", "path": "a.jsonl", "limit": 3, "split": None, "roles_to_train": ["user"]}
    config = parse_config({"base_model": "models/tiny", "datasets": [entry]})
    assert config.datasets[0].limit == 3


def test_a_format_of_another_package_keeps_its_keys_to_itself(tmp_path, monkeypatch):
    """What it reads is not known here."""
    (tmp_path / "acme_format.py").write_text("class Trivia: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import acme_format

    try:
        formats.add("trivia", acme_format.Trivia)
        entry = {"type": "trivia", "split": "hard", "field_output": "answer"}
        config = parse_config({"base_model": "models/tiny", "datasets": [entry]})
        assert config.datasets[0].split == "hard"
        assert idle_dataset_keys(config.datasets[0]) == frozenset()
    finally:
        formats._members.pop("trivia", None)
        sys.modules.pop("acme_format", None)
