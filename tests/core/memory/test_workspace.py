"""Buffers are kept by purpose and by thread, counted, and given back when asked for or when their thread ends."""

from __future__ import annotations

import gc
import threading

import pytest
import torch

from bedstone.core.memory import free_workspaces, kept_workspace_bytes, workspace_buffer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _none_kept():
    free_workspaces()
    yield
    free_workspaces()


def test_a_buffer_is_kept_and_grows():
    """The same memory for the same purpose; other purposes and dtypes have their own."""
    first = workspace_buffer(10, torch.float32, CPU, "tile")
    assert workspace_buffer(5, torch.float32, CPU, "tile").data_ptr() == first.data_ptr()
    assert workspace_buffer(10, torch.float32, CPU, "other").data_ptr() != first.data_ptr()
    assert workspace_buffer(10, torch.float64, CPU, "tile").data_ptr() != first.data_ptr()
    grown = workspace_buffer(20, torch.float32, CPU, "tile")
    assert (grown.shape, workspace_buffer(10, torch.float32, CPU, "tile").data_ptr()) == ((20,), grown.data_ptr())
    free_workspaces()
    again = workspace_buffer(3, torch.float32, CPU, "tile")
    assert again.untyped_storage().nbytes() == 12


def test_threads_do_not_share_buffers():
    """Two threads may multiply at the same time."""
    found = []
    mine = workspace_buffer(10, torch.float32, CPU, "tile")
    thread = threading.Thread(target=lambda: found.append(workspace_buffer(10, torch.float32, CPU, "tile")))
    thread.start()
    thread.join()
    assert found[0].data_ptr() != mine.data_ptr()


def test_what_is_kept_is_counted_and_goes_with_its_thread():
    """Of all threads; a buffer that somebody still holds stays valid."""
    before = kept_workspace_bytes()
    counted = []

    def work():
        workspace_buffer(1000, torch.float32, CPU, "tile")
        counted.append(kept_workspace_bytes() - before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert counted == [4000]
    gc.collect()
    assert kept_workspace_bytes() == before
    held = workspace_buffer(10, torch.float32, CPU, "tile").fill_(7)
    free_workspaces()
    assert kept_workspace_bytes() == before
    assert bool((held == 7).all())


def test_a_buffer_made_in_inference_mode_can_be_written_afterwards():
    """It outlives the block that asked for it."""
    with torch.inference_mode():
        workspace_buffer(4, torch.float32, CPU, "tile")
    buffer = workspace_buffer(4, torch.float32, CPU, "tile")
    assert not buffer.is_inference()
    buffer.zero_()


def test_a_second_call_takes_no_memory():
    """Which is what it is for: no allocation, and so no page fault."""
    workspace_buffer(2**20, torch.float32, CPU, "tile")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        workspace_buffer(2**20, torch.float32, CPU, "tile")
    assert not any(event.self_cpu_memory_usage > 0 for event in profile.key_averages())
