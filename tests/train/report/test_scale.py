"""Axes have few, round, evenly spaced ticks around their values, whatever the values are."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bedstone.train.report.curves import thin
from bedstone.train.report.scale import LARGEST, Axis, round_step, tick_labels

VALUES = st.floats(-LARGEST, LARGEST, allow_subnormal=False)


@given(st.lists(VALUES, min_size=1, max_size=5), st.integers(1, 8), st.booleans())
def test_an_axis_holds_its_values(values, count, from_zero):
    """Every value has a place between both ends, within the width of a rounding error."""
    axis = Axis.around(values, start=200.0, end=0.0, count=count, from_zero=from_zero)
    assert all(-0.01 <= axis.place(value) <= 200.01 for value in values)
    assert not from_zero or axis.low <= 0 <= axis.high
    assert 2 <= len(axis.ticks) <= count + 2


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_distinct_in_print(low, width, count):
    """No two ticks of an axis read the same, and they rise."""
    assume(width > 1e-6 * abs(low))
    axis = Axis.around([low, low + width], start=0.0, end=100.0, count=count)
    assert len(set(axis.labels())) == len(axis.ticks)
    assert all(after > before for before, after in itertools.pairwise(axis.ticks))


@given(st.floats(1e-90, 1e90), st.integers(1, 20))
def test_a_step_is_round_and_wide_enough(width, count):
    """A step is 1, 2 or 5 times a power of ten, and `count` of them reach across."""
    step = round_step(width, count)
    assert f"{step:.6e}".split("e")[0].rstrip("0") in {"1.", "2.", "5."}
    assert step * count >= width * (1 - 1e-6)


@given(st.integers(1, 10**7), st.integers(2, 12))
def test_steps_are_marked_at_whole_numbers(last, count):
    """There is no step one and a half."""
    axis = Axis.spanning(0, last, start=0.0, end=100.0, count=count, whole=True)
    assert all(tick == int(tick) and 0 <= tick <= last for tick in axis.ticks)
    assert all("." not in label for label in axis.labels())


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0.0, 0.5, 1.0], ("0.0", "0.5", "1.0")),
        ([-1.0, 0.0, 1.0], ("-1", "0", "1")),
        ([0.0, 1e7, 2e7], ("0", "1e7", "2e7")),
        ([0.0, 1.5e-4], ("0", "1.5e-4")),
        ([], ()),
    ],
)
def test_labels_have_the_same_number_of_digits(ticks, labels):
    """A column of labels can be compared at a glance."""
    assert tick_labels(ticks) == labels


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200), st.integers(1, 20))
def test_thinning_keeps_the_extremes(values, most):
    """However few points are drawn, the smallest and the largest value are among what they span."""
    points = thin(list(enumerate(values)), most)
    assert len(points) <= most
    assert min(point.low for point in points) == min(values)
    assert max(point.high for point in points) == max(values)
