"""A buffer holds a tensor's bytes, row-major and little-endian, and refuses bytes that do not fit its shape."""

import pickle
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.errors import (
    DeviceNotAvailableError,
    InvalidConfigError,
    ShapeMismatchError,
    UnknownNameError,
    UnsupportedError,
)
from bedstone.interop import TensorBuffer, handle_to_tensor, tensor_to_handle
from bedstone.interop.buffer import _little_endian

ALL = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)
QUANTIZED = [dtype for dtype in ALL if str(dtype).startswith(("torch.qint", "torch.quint"))]


@pytest.mark.parametrize("dtype", [dtype for dtype in ALL if dtype not in QUANTIZED], ids=str)
@pytest.mark.parametrize("shape", [(), (0, 2), (4, 6)])
def test_every_dtype_makes_the_round_trip_bit_for_bit(dtype, shape):
    count = torch.Size(shape).numel() * dtype.itemsize
    tensor = (torch.arange(count) * 7 % 251).to(torch.uint8).view(dtype).reshape(shape)
    buffer = pickle.loads(pickle.dumps(TensorBuffer.from_tensor(tensor)))
    assert (buffer.shape, buffer.dtype, buffer.nbytes, buffer.numel) == (shape, dtype, count, tensor.numel())
    back = buffer.to_tensor()
    assert (back.dtype, back.shape) == (dtype, torch.Size(shape))
    assert back.reshape(-1).view(torch.uint8).equal(tensor.reshape(-1).view(torch.uint8))


@given(st.lists(st.integers(0, 4), max_size=4), st.randoms())
def test_any_strides_come_out_row_major(shape, chance):
    tensor = torch.arange(torch.Size(shape).numel()).reshape(shape)
    order = list(range(len(shape)))
    chance.shuffle(order)
    buffer = TensorBuffer.from_tensor(tensor.permute(order))
    assert buffer.bytes == struct.pack(f"<{tensor.numel()}q", *tensor.permute(order).flatten().tolist())


def test_the_bytes_are_little_endian():
    assert TensorBuffer.from_tensor(torch.tensor([1.0, -2.0])).bytes == struct.pack("<2f", 1.0, -2.0)


@pytest.mark.parametrize(
    ("dtype", "big", "little"),
    [
        (torch.int32, b"\x00\x00\x00\x01\x00\x00\x00\x02", b"\x01\x00\x00\x00\x02\x00\x00\x00"),
        (torch.complex64, struct.pack(">2f", 1, 2), struct.pack("<2f", 1, 2)),
        (torch.float8_e5m2, b"\x01\x02", b"\x01\x02"),
    ],
    ids=str,
)
def test_a_big_endian_machine_turns_every_number_around(dtype, big, little):
    assert _little_endian(big, dtype, "big") == little
    assert _little_endian(little, dtype, "big") == big
    assert _little_endian(little, dtype, "little") is little


def test_gradients_and_lazy_bits_are_carried_out():
    assert TensorBuffer.from_tensor(torch.nn.Parameter(torch.ones(1))).bytes == struct.pack("<f", 1)
    conjugated = torch.tensor([1 + 2j]).conj()
    assert TensorBuffer.from_tensor(conjugated).bytes == struct.pack("<2f", 1, -2)
    assert TensorBuffer.from_tensor(conjugated.imag).bytes == struct.pack("<f", -2)


@pytest.mark.parametrize("size", [0, 23, 25, 48])
def test_bytes_that_do_not_fit_the_shape_are_refused(size):
    with pytest.raises(ShapeMismatchError) as raised:
        TensorBuffer(bytes(size), (2, 3), "f32")
    assert str(raised.value) == f"`bytes` holds {size} bytes, but shape (2, 3) of torch.float32 takes 24."
    assert (raised.value.expected, raised.value.actual, raised.value.argument) == (24, size, "bytes")


def test_a_huge_shape_does_not_wrap_to_a_small_one():
    with pytest.raises(ShapeMismatchError, match="takes 73786976294838206464"):
        TensorBuffer(b"", (2**32, 2**32), "f32")


def test_wrong_parts_are_named():
    with pytest.raises(InvalidConfigError) as text:
        TensorBuffer("abcd", (1,), "f32")
    assert str(text.value) == "`bytes` must be bytes, not a str."
    with pytest.raises(InvalidConfigError, match=r"^`shape\[0\]` \(=-1\) must be a whole number of at least 0\.$"):
        TensorBuffer(b"", (-1,), "f32")
    with pytest.raises(UnknownNameError, match="No dtype is called 'f23'"):
        TensorBuffer(bytes(4), (1,), "f23")


@pytest.mark.parametrize("dtype", QUANTIZED, ids=str)
def test_quantized_dtypes_are_refused(dtype):
    with pytest.raises(UnsupportedError, match="its scale is not part of its memory"):
        TensorBuffer(bytes(dtype.itemsize), (1,), dtype)


def test_tensors_without_plain_memory_are_refused():
    with pytest.raises(UnsupportedError, match=r"layout torch\.sparse_coo"):
        TensorBuffer.from_tensor(torch.ones(2, 2).to_sparse())
    with pytest.raises(UnsupportedError, match="has no memory of its own"):
        TensorBuffer.from_tensor(torch.ones(2, device="meta"))
    with pytest.raises(InvalidConfigError, match=r"^`tensor` must be a torch\.Tensor, not a list\.$"):
        TensorBuffer.from_tensor([1])


def test_a_buffer_does_not_change_with_its_source_nor_with_its_tensors():
    raw = bytearray(struct.pack("<f", 1))
    buffer = TensorBuffer(raw, (1,), "f32")
    raw[:] = bytes(4)
    handle_to_tensor(buffer)[0] = 5
    assert buffer.to_tensor().item() == 1


def test_equal_buffers_are_equal_and_have_one_hash():
    one, other = TensorBuffer(bytes(4), [1], "f32"), TensorBuffer(bytearray(4), (1,), torch.float32)
    assert one == other
    assert hash(one) == hash(other)


def test_a_buffer_of_a_handle_of_an_array_is_the_same_numbers():
    tensor = torch.arange(4, dtype=torch.int16)
    assert TensorBuffer.from_tensor(handle_to_tensor(tensor_to_handle(tensor))).to_tensor().equal(tensor)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(DeviceNotAvailableError, match="'cuda:0'"):
        TensorBuffer(bytes(4), (1,), "f32").to_tensor("cuda:0")
