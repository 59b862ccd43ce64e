"""Batches are padded by place, ordered by key, the same for any number of workers, and leave global randomness alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.errors import InvalidConfigError
from bedstone.repro.seeds import SeedTree
from bedstone.testing.tiny import tiny_llama, tiny_tokenizer
from bedstone.train.data import IGNORED, Batch, Example, batch_order, collate, fixed_order, padding_id, train_loader

SEEDS = SeedTree(7)
EOS = 2  # and the padding token
IDS = st.lists(st.integers(0, 300), min_size=1, max_size=9)


def example(length, number=0):
    return Example([number, *range(10, 10 + length - 2), EOS], [IGNORED, *range(10, 10 + length - 2), EOS])


EXAMPLES = [example(3 + i % 4, i) for i in range(23)]


def contents(batch: Batch):
    return batch.input_ids.tolist(), batch.attention_mask.tolist(), batch.labels.tolist()


def numpy_state() -> list[int]:
    return np.random.get_state()[1].tolist()  # noqa: NPY002 - the legacy generator is the global one


def loaded(order, workers=0):
    return [contents(batch) for batch in train_loader(EXAMPLES, order, pad_id=EOS, seeds=SEEDS, workers=workers)]


@given(st.lists(st.tuples(IDS, st.integers(0, 9)), min_size=1, max_size=5))
def test_the_mask_gives_every_example_back(rows):
    """Whatever the ids are, the padding id among them."""
    examples = [Example(ids, [IGNORED] * min(cut, len(ids)) + ids[cut:]) for ids, cut in rows]
    batch = collate(examples, pad_id=EOS)
    assert {t.dtype for t in (batch.input_ids, batch.attention_mask, batch.labels)} == {torch.int64}
    assert batch.trained_tokens == sum(e.trained_tokens for e in examples)
    for i, e in enumerate(examples):
        there = batch.attention_mask[i].bool()
        assert batch.attention_mask[i].tolist() == sorted(batch.attention_mask[i].tolist(), reverse=True)
        assert (batch.input_ids[i][there].tolist(), batch.labels[i][there].tolist()) == (e.input_ids, e.labels)
        assert set(batch.labels[i][~there].tolist()) <= {IGNORED}
        assert set(batch.input_ids[i][~there].tolist()) <= {EOS}


def test_an_end_token_that_is_the_padding_token_is_trained():
    """Masking by id would unlearn how to stop."""
    batch = collate([example(5), example(3)], pad_id=EOS)
    assert [row.tolist().count(EOS) for row in batch.labels] == [1, 1]
    assert batch.input_ids[1].tolist().count(EOS) == 3


def test_padding_does_not_change_the_loss():
    """An example alone and beside a longer one has the same answers from the model."""
    model = tiny_llama()
    short, long = example(4), example(9)
    together = collate([short, long], pad_id=padding_id(tiny_tokenizer()))
    alone = collate([short], pad_id=EOS)
    with torch.inference_mode():
        expected = model(input_ids=alone.input_ids, attention_mask=alone.attention_mask).logits[0]
        found = model(input_ids=together.input_ids, attention_mask=together.attention_mask).logits[0, :4]
    torch.testing.assert_close(found, expected)


@given(st.integers(0, 60), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_has_every_example_once(count, size, epoch):
    """Full batches, the last one maybe smaller; the same when asked again."""
    order = batch_order(count, size, SEEDS, epoch)
    assert sorted(i for batch in order for i in batch) == list(range(count))
    assert [len(batch) for batch in order] == [size] * (count // size) + [count % size] * (count % size > 0)
    assert batch_order(count, size, SEEDS, epoch) == order


def test_epochs_and_seeds_have_orders_of_their_own():
    """A repeated order would be a repeated epoch."""
    orders = [batch_order(40, 4, SeedTree(seed), epoch) for seed in range(3) for epoch in range(3)]
    assert len({str(order) for order in orders}) == 9
    assert fixed_order(40, 4) not in orders


def test_the_order_does_not_depend_on_the_batch_size():
    """So a run with smaller micro-batches sees the same rows."""
    flat = [[i for batch in batch_order(23, size, SEEDS, 0) for i in batch] for size in (1, 4, 23)]
    assert flat[0] == flat[1] == flat[2]


@pytest.mark.parametrize("make", [lambda: batch_order(5, 0, SEEDS, 0), lambda: fixed_order(5, 0)])
def test_refuses_a_batch_of_nothing(make):
    """At least one example."""
    with pytest.raises(InvalidConfigError) as caught:
        make()
    assert str(caught.value) == "`batch_size` (=0) must be at least 1."


def test_any_number_of_workers_gives_the_same_batches():
    """Bit for bit, in the same order."""
    order = batch_order(len(EXAMPLES), 4, SEEDS, 0)
    expected = [contents(collate([EXAMPLES[i] for i in batch], EOS)) for batch in order]
    assert loaded(order) == loaded(order, workers=1) == loaded(order, workers=2) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_slice_of_the_order_goes_on_where_a_run_stopped(workers):
    """At every position, the end of the epoch too."""
    order = batch_order(len(EXAMPLES), 4, SEEDS, 1)
    whole = loaded(order)
    for done in (1, 5, len(order)):
        assert loaded(order[done:], workers) == whole[done:]


@pytest.mark.parametrize("workers", [0, 2])
def test_global_randomness_is_neither_read_nor_moved(workers):
    """A dropout mask after an epoch is the one it would have been without it."""
    torch.manual_seed(3)
    before = torch.get_rng_state(), random.getstate(), numpy_state()
    order = batch_order(len(EXAMPLES), 4, SEEDS, 0)
    batches = loaded(order, workers)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), numpy_state()) == before[1:]
    torch.manual_seed(4)
    assert loaded(order, workers) == batches


def test_a_batch_moves_to_a_device_whole():
    """The meta device is on every machine."""
    batch = collate(EXAMPLES[:2], EOS).to("meta")
    assert {t.device.type for t in (batch.input_ids, batch.attention_mask, batch.labels)} == {"meta"}


def test_the_padding_id_falls_back_to_the_end_token():
    """Any id will do, since it is never looked at."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    assert padding_id(tokenizer) == EOS
    tokenizer.eos_token = None
    assert padding_id(tokenizer) == 0
