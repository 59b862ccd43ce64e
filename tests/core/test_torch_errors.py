"""torch's errors become ours, sizes parsed from each allocator's wording."""

from __future__ import annotations

import pytest
import torch

from bedstone.core.errors import FrameworkError, OutOfMemoryError, ShapeMismatchError
from bedstone.core.torch_errors import translate_torch_errors

CUDA_TEXT = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 1 has a total capacity of 23.65 GiB of which 1.12 GiB is free. "
    "Including non-PyTorch memory, this process has 22.50 GiB memory in use. Of the allocated memory 21.00 GiB is "
    "allocated by PyTorch, and 512.00 MiB is reserved by PyTorch but unallocated."
)
MPS_TEXT = (
    "MPS backend out of memory (MPS allocated: 17.00 GB, other allocations: 1.00 GB, max allowed: 18.13 GB). "
    "Tried to allocate 2.00 GB on private pool."
)


def translated(error: Exception):
    with pytest.raises(OutOfMemoryError) as caught, translate_torch_errors(doing="run a step"):
        raise error
    assert caught.value.__cause__ is error
    return caught.value


def test_a_real_cpu_allocation_that_fails_names_its_size():
    """The one wording that this machine can produce itself."""
    with pytest.raises(OutOfMemoryError) as caught, translate_torch_errors(doing="allocate"):
        torch.empty(2**50, dtype=torch.uint8)
    error = caught.value
    assert (error.device, error.requested_bytes) == ("cpu", 2**50)
    assert str(error) == (
        "Out of memory on cpu while trying to allocate: requested 1,125,899,906,842,624 bytes. "
        "Use a smaller batch or sequence, checkpoint activations, or quantize the frozen weights."
    )


def test_a_cuda_message_gives_all_sizes():
    """Requested, free, total and allocated are read from torch's sentence."""
    error = translated(torch.OutOfMemoryError(CUDA_TEXT))
    assert error.device == "cuda:1"
    assert error.requested_bytes == round(2.5 * 2**30)
    assert error.free_bytes == round(1.12 * 2**30)
    assert error.limit_bytes == round(23.65 * 2**30)
    assert error.allocated_bytes == (21 * 2**30)


def test_an_mps_message_gives_requested_and_allocated():
    """MPS says KB, MB, GB and means powers of 1024."""
    error = translated(RuntimeError(MPS_TEXT))
    assert (error.device, error.requested_bytes, error.allocated_bytes) == ("mps", 2 * 2**30, 17 * 2**30)


def test_a_message_without_sizes_keeps_its_first_line():
    """What cannot be parsed is shown, not dropped."""
    error = translated(RuntimeError("CUDA error: out of memory\nmore"))
    assert error.message == "Out of memory while trying to run a step: CUDA error: out of memory."
    assert error.requested_bytes is None


def test_another_runtime_error_is_a_framework_error():
    """Not everything is memory."""
    with pytest.raises(FrameworkError) as caught, translate_torch_errors(doing="add"):
        torch.ones(2) + torch.ones(3)
    assert str(caught.value).startswith("torch failed to add: The size of tensor a (2) must match")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_our_own_errors_and_foreign_exceptions_pass_unchanged():
    """A CoreError keeps its class; a KeyError is nobody's business here."""
    for error in (ShapeMismatchError(expected=1, actual=2), KeyError("k")):
        with pytest.raises(type(error)) as caught, translate_torch_errors(doing="look"):
            raise error
        assert caught.value is error


def test_a_text_without_sizes_or_without_any_words_is_translated_all_the_same():
    """An error path that fails hides the error."""
    assert str(translated(torch.OutOfMemoryError())).startswith(
        "Out of memory while trying to run a step: sizes unknown."
    )
    assert translated(torch.OutOfMemoryError("tried to allocate 2 mib")).requested_bytes == 2 * 2**20
