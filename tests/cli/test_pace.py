"""Speed and remaining time come from the events' own times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedstone.cli.pace import WINDOW, Pace, duration


def test_nothing_is_promised_before_two_readings_or_without_a_total():
    """A guess would be wrong."""
    pace = Pace()
    assert pace.left_s(10) is None
    pace.add(time=0.0, done=1)
    assert pace.left_s(10) is None
    pace.add(time=1.0, done=2)
    assert pace.left_s(0) is None
    assert pace.left_s(10) == 8.0


def test_a_slow_start_is_forgotten():
    """Only the last readings count."""
    pace = Pace()
    pace.add(time=-1000.0, done=0)
    for step in range(1, WINDOW + 1):
        pace.add(time=float(step), done=step)
    assert pace.left_s(100) == 80.0


def test_work_that_begins_again_is_measured_anew():
    """A second evaluation counts from 0."""
    pace = Pace()
    pace.add(time=0.0, done=0)
    pace.add(time=1.0, done=10)
    pace.add(time=50.0, done=0)
    assert pace.left_s(10) is None
    pace.add(time=51.0, done=5)
    assert pace.left_s(10) == 1.0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 1000)), max_size=40), st.integers(-5, 2000))
def test_the_remaining_time_is_never_negative(readings, total):
    """Whatever the events say, as long as time goes on."""
    pace = Pace()
    for time, done in sorted(readings):
        pace.add(time=time, done=done)
    left = pace.left_s(total)
    assert left is None or left >= 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (90061, "25h01m")],
)
def test_durations_have_two_units(seconds, text):
    """Rounded once."""
    assert duration(seconds) == text
