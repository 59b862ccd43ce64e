"""An output buffer is allocated once, on the device that was asked for, and written in place ever after."""

import pytest
import torch

from bedstone.core.errors import (
    DeviceNotAvailableError,
    InvalidConfigError,
    OutOfMemoryError,
    UnknownNameError,
    UnsupportedError,
)
from bedstone.interop import allocate_output_buffer, handle_to_tensor, tensor_to_handle

ALL = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)
QUANTIZED = [dtype for dtype in ALL if str(dtype).startswith(("torch.qint", "torch.quint"))]


@pytest.mark.parametrize("dtype", [dtype for dtype in ALL if dtype not in QUANTIZED], ids=str)
def test_the_buffer_has_shape_dtype_and_device_and_is_contiguous(dtype, allocated_bytes):
    made = []
    assert allocated_bytes(lambda: made.append(allocate_output_buffer([2, 3], dtype, "cpu"))) == 6 * dtype.itemsize
    buffer = made[0]
    assert (buffer.shape, buffer.dtype, buffer.device.type) == ((2, 3), dtype, "cpu")
    assert buffer.is_contiguous()
    assert not buffer.requires_grad


def test_a_loop_that_writes_into_the_buffer_allocates_nothing(allocated_bytes):
    out = allocate_output_buffer((64, 64), torch.float32, "cpu")
    left, right = torch.ones(64, 64), torch.eye(64)
    address = out.data_ptr()
    torch.mm(left, right, out=out)  # the first call may set up the library

    def loop():
        for _ in range(10):
            torch.mm(left, right, out=out)
            handle_to_tensor(tensor_to_handle(out)).neg_()

    assert allocated_bytes(loop) == 0
    assert (out.data_ptr(), out[0, 0].item()) == (address, -1.0)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_empty_and_zero_dimensional_buffers_exist(shape):
    assert allocate_output_buffer(shape, "bf16", "cpu").shape == shape


def test_a_size_that_nothing_can_hold_is_refused_with_its_bytes():
    with pytest.raises(OutOfMemoryError) as raised:
        allocate_output_buffer((2**32, 2**32), "f32", "cpu")
    assert str(raised.value) == (
        "Out of memory on cpu: a tensor of shape (4294967296, 4294967296) and torch.float32 takes "
        "73,786,976,294,838,206,464 bytes. No size may exceed 9,223,372,036,854,775,807."
    )
    assert raised.value.requested_bytes == 2**66


def test_a_dimension_that_torch_cannot_count_is_refused_even_when_empty():
    with pytest.raises(OutOfMemoryError, match="takes 0 bytes"):
        allocate_output_buffer((2**70, 0), "f32", "cpu")


def test_a_size_that_this_machine_cannot_hold_is_out_of_memory():
    with pytest.raises(
        OutOfMemoryError, match=r"^Out of memory on cpu while trying to allocate an output of shape"
    ) as raised:
        allocate_output_buffer((2**60,), "u8", "cpu")
    assert (raised.value.requested_bytes, raised.value.device) == (2**60, "cpu")
    assert isinstance(raised.value, MemoryError)


@pytest.mark.parametrize("size", [-1, True, 2.0])
def test_a_size_that_is_not_one_is_named(size):
    with pytest.raises(InvalidConfigError) as raised:
        allocate_output_buffer((2, size), "f32", "cpu")
    assert str(raised.value) == f"`shape[1]` (={size!r}) must be a whole number of at least 0."


def test_an_unknown_dtype_is_refused():
    with pytest.raises(UnknownNameError, match="No dtype is called 'f61'"):
        allocate_output_buffer((2,), "f61", "cpu")


@pytest.mark.parametrize("dtype", QUANTIZED, ids=str)
def test_quantized_dtypes_are_refused(dtype):
    with pytest.raises(UnsupportedError, match="its scale is not part of its memory"):
        allocate_output_buffer((2,), dtype, "cpu")


@pytest.mark.parametrize("device", ["gpu", "meta"])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(InvalidConfigError, match=f"`device` \\(='{device}'\\) names no device"):
        allocate_output_buffer((2,), "f32", device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(DeviceNotAvailableError, match="'cuda:0'"):
        allocate_output_buffer((2,), "f32", "cuda:0")
