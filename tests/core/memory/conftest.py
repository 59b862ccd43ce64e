"""Measures what torch's CPU allocator really hands out."""

import pytest
from torch.profiler import ProfilerActivity, profile


@pytest.fixture
def peak_bytes():
    """A function that runs another and returns the most bytes that it held at once, from the allocator's own events."""

    def measure(work):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            kept = work()  # noqa: F841 - what the work returns stays alive
        events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
        held = peak = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            held += event.nbytes()
            peak = max(peak, held)
        return peak

    return measure
