"""Measures what torch's CPU allocator hands out, and reads the arrays of other frameworks with their own means."""

import numpy as np
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


@pytest.fixture
def address():
    """A function that returns where the elements of an array lie, as its own framework says."""

    def read(array):
        if isinstance(array, np.ndarray):
            return array.ctypes.data
        if hasattr(array, "unsafe_buffer_pointer"):
            return array.unsafe_buffer_pointer()  # JAX
        return array.ptr if hasattr(array, "ptr") else array.data_ptr()  # Warp; TVM-FFI and torch

    return read


@pytest.fixture
def seen():
    """A function that returns the elements of an array as NumPy sees them through its own framework."""

    def read(array):
        if hasattr(array, "numpy"):
            return array.numpy()  # Warp
        return np.from_dlpack(array) if type(array).__module__.startswith("tvm_ffi") else np.asarray(array)

    return read
