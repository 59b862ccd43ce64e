"""Measures what torch's CPU allocator hands out."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile


@pytest.fixture
def allocated_bytes():
    """A function that runs another and returns all bytes that torch allocated meanwhile, freed again or not."""

    def measure(work):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            kept = work()  # noqa: F841 - what the work returns stays alive
        events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
        return sum(max(event.nbytes(), 0) for event in events)

    assert measure(lambda: torch.empty(1000, dtype=torch.uint8)) == 1000  # it does see an allocation
    return measure
