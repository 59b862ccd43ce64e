"""Data sets become examples with honest counts, a fingerprint, and a validation part chosen by key."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.errors import InvalidConfigError, UnknownNameError
from bedstone.repro.seeds import SeedTree
from bedstone.train.config.schema import DatasetConfig
from bedstone.train.data import (
    IGNORED,
    DataError,
    DataReport,
    DataSplit,
    Example,
    fingerprint,
    load_split,
    split_validation,
)
from bedstone.train.data.split import paced

ROWS = [{"instruction": f"Say {i}.", "output": "x" * i} for i in range(1, 5)]


def load(path, tokenizer, limit=None, **options):
    return load_split([DatasetConfig(type="alpaca", path=path, limit=limit)], tokenizer, **options)


def whole(count):
    examples = tuple(Example([i, i], [IGNORED, i], f"row {i}") for i in range(count))
    return DataSplit(examples, DataReport(count, 2 * count, count, 0, 3), fingerprint(examples))


def test_counts_every_row_and_token(jsonl, tokenizer):
    """The report is the sum over the examples."""
    split = load(jsonl(*ROWS), tokenizer)
    assert [example.source for example in split.examples] == [f"rows.jsonl:{i}" for i in range(1, 5)]
    assert split.report == DataReport(
        rows=4,
        tokens=sum(len(example.input_ids) for example in split.examples),
        trained_tokens=(1 + 2 + 3 + 4) + 4,  # one token a letter, and an end token each
        truncated=0,
        dropped=0,
    )


def test_data_sets_are_joined_in_order_and_limited(jsonl, tokenizer):
    """`limit` takes the first rows of its own data set."""
    first, second = jsonl(*ROWS, name="a.jsonl"), jsonl(*ROWS, name="b.jsonl")
    datasets = [DatasetConfig(type="alpaca", path=first, limit=1), DatasetConfig(type="alpaca", path=second, limit=2)]
    split = load_split(datasets, tokenizer)
    assert [example.source for example in split.examples] == ["a.jsonl:1", "b.jsonl:1", "b.jsonl:2"]


def test_long_rows_are_truncated_or_dropped_and_counted(jsonl, tokenizer):
    """Never in silence."""
    name = jsonl(*ROWS)
    lengths = [len(example.input_ids) for example in load(name, tokenizer).examples]
    cut = load(name, tokenizer, sequence_len=lengths[1])
    assert (cut.report.rows, cut.report.truncated, cut.report.dropped) == (4, 2, 0)
    assert max(len(example.input_ids) for example in cut.examples) == lengths[1]
    fewer = load(name, tokenizer, sequence_len=lengths[1], excess_length_strategy="drop")
    assert (fewer.report.rows, fewer.report.truncated, fewer.report.dropped) == (2, 0, 2)
    with pytest.raises(DataError):
        load(name, tokenizer, sequence_len=lengths[1], excess_length_strategy="raise")


def test_refuses_to_drop_everything(jsonl, tokenizer):
    """An empty training set is no training set."""
    name = jsonl(*ROWS)
    with pytest.raises(DataError) as caught:
        load(name, tokenizer, sequence_len=8, excess_length_strategy="drop")
    assert str(caught.value) == (
        "Each of the 4 rows has more tokens than `sequence_len` (=8) and was dropped. "
        "Raise `sequence_len`, or set `excess_length_strategy: truncate`."
    )


def test_an_empty_data_set_is_named(jsonl, tokenizer):
    """Also one of blank lines."""
    name = jsonl("", "")
    with pytest.raises(DataError) as caught:
        load(name, tokenizer)
    assert str(caught.value) == "The data set rows.jsonl has no rows."


def test_a_type_is_checked_before_any_file_is_read(tokenizer):
    """The mistake that costs nothing to find comes first."""
    datasets = [DatasetConfig(type="alpaca", path="absent.jsonl"), DatasetConfig(type="alpacca", path="x.jsonl")]
    with pytest.raises(UnknownNameError):
        load_split(datasets, tokenizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence_len": 1}, "`sequence_len` (=1) must be at least 2."),
        (
            {"excess_length_strategy": "cut"},
            "`excess_length_strategy` (='cut') must be one of truncate, drop, raise.",
        ),
    ],
)
def test_refuses_options_out_of_range(tokenizer, options, message):
    """A caller in Python has no schema before it."""
    with pytest.raises(InvalidConfigError) as caught:
        load("rows.jsonl", tokenizer, **options)
    assert str(caught.value) == message


def test_refuses_no_data_sets(tokenizer):
    """At least one."""
    with pytest.raises(InvalidConfigError) as caught:
        load_split([], tokenizer)
    assert str(caught.value) == "`datasets` is empty. Name at least one data set."


def test_training_on_inputs_labels_everything(jsonl, tokenizer):
    """Prompt and answer."""
    split = load(jsonl(*ROWS), tokenizer, train_on_inputs=True)
    assert all(example.labels == example.input_ids for example in split.examples)


def test_the_fingerprint_is_the_data_and_nothing_else(jsonl, tokenizer):
    """Where the rows lie does not matter; each token, label and their order does."""
    one, other = (load(jsonl(*ROWS, name=name), tokenizer) for name in ("a.jsonl", "b.jsonl"))
    assert one.fingerprint == other.fingerprint == fingerprint(one.examples)
    assert fingerprint(one.examples[::-1]) != one.fingerprint
    assert load("a.jsonl", tokenizer, train_on_inputs=True).fingerprint != one.fingerprint
    assert load("a.jsonl", tokenizer, limit=3).fingerprint != one.fingerprint


def test_the_fingerprint_is_the_same_on_every_machine():
    """Little-endian 64-bit numbers, each example after its length."""
    import hashlib

    numbers = [2, 7, 8, IGNORED, 8, 1, 9, 9]
    expected = hashlib.sha256(b"".join(n.to_bytes(8, "little", signed=True) for n in numbers)).hexdigest()
    assert fingerprint([Example([7, 8], [IGNORED, 8]), Example([9], [9])]) == expected


@given(st.integers(2, 40), st.floats(0.001, 0.999) | st.integers(1, 39), st.integers(0, 9))
def test_validation_is_a_keyed_partition(count, size, seed):
    """Every row once, in its old order, the same for the same seed."""
    held = math.ceil(size * count) if size < 1 else size
    if held >= count:
        return
    train, validation = split_validation(whole(count), size, SeedTree(seed))
    assert split_validation(whole(count), size, SeedTree(seed)) == (train, validation)
    kept, aside = ([example.input_ids[0] for example in part.examples] for part in (train, validation))
    assert len(aside) == held == validation.report.rows
    assert sorted(kept + aside) == list(range(count))
    assert (kept, aside) == (sorted(kept), sorted(aside))
    assert (train.report.dropped, validation.report.dropped) == (3, 0)


def test_another_seed_holds_other_rows_out():
    """And none at all when the size is 0."""
    parts = {split_validation(whole(40), 5, SeedTree(seed))[1].fingerprint for seed in range(5)}
    assert len(parts) == 5
    assert split_validation(whole(4), 0, SeedTree(0)) == (whole(4), None)


@pytest.mark.parametrize("size", [-1, 4, 5, 1.5, 0.99])
def test_refuses_a_validation_size_that_leaves_nothing(size):
    """0.99 of 4 rows is all of them, rounded up."""
    with pytest.raises(InvalidConfigError) as caught:
        split_validation(whole(4), size, SeedTree(0))
    assert str(caught.value) == (f"`val_set_size` (={size}) must be a share below 1 or a number of rows below all 4.")


def test_long_work_shows_its_progress(events):
    """Short work is silent; long work ends with all of it done."""
    assert list(paced([1, 2, 3], "counting", "rows")) == [1, 2, 3]
    assert events == []
    for _ in paced([1, 2, 3], "counting", "rows", after_s=0.02, every_s=0.0):
        time.sleep(0.03)  # at least: the first item may already be followed by an event on a busy machine
    assert {(e.phase, e.total, e.unit) for e in events} == {("counting", 3, "rows")}
    assert [e.done for e in events][-2:] == [2, 3]
