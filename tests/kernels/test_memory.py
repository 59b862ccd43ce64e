"""A large output asks for huge pages and is an ordinary tensor in every other way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from bedstone.kernels import memory
from bedstone.kernels.memory import empty_output

CPU = torch.device("cpu")
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (3000, 1000), (4097, 1025)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_is_an_ordinary_tensor(shape, dtype):
    """Its shape, dtype and contiguity, and every element can be written and read."""
    tensor = empty_output(shape, dtype, CPU)
    assert (tensor.shape, tensor.dtype, tensor.is_contiguous()) == (torch.Size(shape), dtype, True)
    assert torch.equal(tensor.fill_(2), torch.full(shape, 2, dtype=dtype))


def test_the_meta_device_gets_no_advice():
    """A tensor without memory has no pages."""
    assert empty_output((4096, 4096), torch.float32, torch.device("meta")).is_meta


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are asked of Linux")
@pytest.mark.skipif(not ENABLED.exists() or "[never]" in ENABLED.read_text(), reason="this kernel gives no huge pages")
def test_linux_marks_the_pages_of_a_large_output():
    """The kernel lists the advice (`hg`) with the mapping."""
    large = empty_output((64 * 2**20,), torch.uint8, CPU)
    assert "hg" in flags_at(large.data_ptr() + large.nbytes // 2)


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are asked of Linux")
def test_a_small_output_asks_for_nothing(monkeypatch):
    """It may lie where a large one was advised before, so the call is watched, not the mapping."""
    asked = []
    monkeypatch.setattr(memory, "_madvise", lambda: lambda *arguments: asked.append(arguments))
    empty_output((2**20,), torch.uint8, CPU)
    assert asked == []
    empty_output((64 * 2**20,), torch.uint8, CPU)
    assert len(asked) == 1


def flags_at(address):
    """The flags of the mapping that holds an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, _ = line.partition(" ")
        if "-" in first and not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= address < end
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError(f"{address:#x} is in no mapping")
