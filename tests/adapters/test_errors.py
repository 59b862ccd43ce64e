"""Errors about adapters keep the contract of every error: facts, message, built-in base, copies."""

from __future__ import annotations

import pytest
import torch

from bedstone.adapters import AdapterNotFoundError, MergeError, RankTooLargeError, check_rank
from bedstone.core.errors import InvalidConfigError
from bedstone.testing import check_error


@pytest.mark.parametrize(
    ("cls", "facts"),
    [
        (AdapterNotFoundError, {"name": "defualt", "known": ("default", "french")}),
        (RankTooLargeError, {"rank": 128, "layer": "fc1", "shape": (64, 32), "argument": "r"}),
        (MergeError, {"reason": "It is full.", "layer": "fc1", "adapter": "default", "remedy": "Make room."}),
    ],
)
def test_an_error_keeps_its_contract(cls, facts):
    """The kit says what is checked."""
    check_error(cls, **facts)


def test_a_rank_beyond_a_layer_names_layer_and_limit():
    """An InvalidConfigError, with the argument as the user wrote it."""
    layers = {"fc1": torch.nn.Linear(64, 64), "fc2": torch.nn.Linear(64, 8)}
    with pytest.raises(RankTooLargeError) as caught:
        check_rank(9, layers, argument="lora_r")
    assert str(caught.value) == (
        "`lora_r` (=9) must not exceed the smaller side of fc2, min(8, 64) = 8. Set `lora_r` to at most 8, or target other layers."
    )
    assert isinstance(caught.value, InvalidConfigError)
    assert (caught.value.argument, caught.value.value) == ("lora_r", 9)


def test_the_largest_rank_is_allowed():
    """Equal to the smaller side."""
    check_rank(8, {"fc2": torch.nn.Linear(64, 8)})
