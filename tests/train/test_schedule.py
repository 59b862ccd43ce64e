"""The learning rate is a function of the step: warm-up from the first step, decay equal to transformers'."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from bedstone.train.schedule import Schedule

PEERS = {"cosine": get_cosine_schedule_with_warmup, "linear": get_linear_schedule_with_warmup}


def peer_rates(kind, warmup, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = PEERS[kind](optimizer, warmup, total)
    rates = []
    for _ in range(total):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("kind", PEERS)
def test_decay_equals_transformers(kind):
    """After the warm-up, every rate is that of the peer to the last bit of a float."""
    ours = [Schedule(kind, 1.0, total=20, warmup=5).lr(step) for step in range(6, 21)]
    assert ours == pytest.approx(peer_rates(kind, 5, 20)[5:], rel=1e-12)


def test_warm_up_starts_small_and_ends_at_the_peak():
    """The first step already moves, by a fraction."""
    schedule = Schedule("constant", 8e-4, total=10, warmup=4)
    assert [schedule.lr(step) for step in (1, 2, 3, 4, 5, 10)] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 8e-4, 8e-4])


def test_without_warm_up_the_first_step_has_the_full_rate():
    """Nothing divides by zero."""
    assert Schedule("cosine", 1.0, total=3).lr(1) == 1.0


def test_cosine_keeps_its_floor():
    """The last step is near the floor, never below it."""
    schedule = Schedule("cosine", 1.0, total=1000, floor=0.1)
    assert 0.1 <= schedule.lr(1000) < 0.1001


@given(
    kind=st.sampled_from(["cosine", "linear", "constant"]),
    total=st.integers(1, 200),
    warmup=st.integers(0, 200),
)
def test_rates_stay_between_zero_and_the_peak_and_never_rise_after_warm_up(kind, total, warmup):
    """A property of all schedules."""
    warmup = min(warmup, total)
    rates = [Schedule(kind, 1.0, total, warmup).lr(step) for step in range(1, total + 1)]
    assert all(0 < rate <= 1 for rate in rates)
    after = rates[max(0, warmup - 1) :]
    assert all(late <= early for early, late in pairwise(after))
