"""A view of a packed weight can be read in every way, and what leaves it is plain."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

import bedstone as bs
from bedstone.quant import PackedWriteError
from bedstone.quant.view import ReadOnlyView


@pytest.fixture
def row():
    """The first row of a packed matrix of ones."""
    return bs.quantize(torch.ones(2, 64), "nf4")[0]


def test_prints_and_lists_like_a_tensor(row):
    """As the dense row would."""
    assert isinstance(row, ReadOnlyView)
    assert repr(row[:2]) == "tensor([1., 1.])"
    assert row[:2].tolist() == [1.0, 1.0]
    assert row[0].item() == 1.0
    assert float(row[0]) == 1.0


def test_an_array_of_it_refuses_to_be_written(row):
    """A write to the array would be lost just the same."""
    array = row.numpy()
    assert array.sum() == 64
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 7


def test_says_what_to_write_to_instead(row):
    """The whole message."""
    with pytest.raises(PackedWriteError) as caught:
        row.mul_(2)
    assert str(caught.value) == (
        "mul_ would write to a view of a packed nf4 weight, which is a copy, so the write would be lost. "
        "Write to the whole weight instead, for example `weight.copy_(dense)`."
    )
    assert (caught.value.op, caught.value.scheme) == ("mul_", "nf4")


def test_copies_are_plain_tensors_of_their_own(row):
    """deepcopy, pickle, torch.save."""
    buffer = io.BytesIO()
    torch.save(row, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(row), pickle.loads(pickle.dumps(row)), torch.load(buffer, weights_only=True)):
        assert type(other) is torch.Tensor
        other.zero_()
    assert row.sum() == 64


def test_a_gradient_can_flow_to_a_leaf_made_from_it(row):
    """Some adapters start from a copy of a part of the weight."""
    leaf = row.clone().requires_grad_()
    (leaf * row).sum().backward()
    assert torch.equal(leaf.grad, torch.ones(64))
