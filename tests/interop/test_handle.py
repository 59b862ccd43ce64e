"""A handle is a tensor's own memory: same address, nothing allocated, alive as long as anybody needs it."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bedstone.core.errors import InvalidConfigError, UnsupportedError
from bedstone.interop import SharingError, handle_to_tensor, tensor_to_handle

ALL = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)
QUANTIZED = [dtype for dtype in ALL if str(dtype).startswith(("torch.qint", "torch.quint"))]
SHARED = [dtype for dtype in ALL if dtype not in QUANTIZED]


def numbers(dtype, shape=(4, 6)):
    """A tensor of any dtype with known bits, transposed and with gaps."""
    count = torch.Size(shape).numel() * dtype.itemsize
    return (torch.arange(count) % 2).to(torch.uint8).view(dtype).reshape(shape).t()[::2]


@pytest.mark.parametrize("dtype", SHARED, ids=str)
def test_every_dtype_comes_back_on_the_same_memory_with_its_strides(dtype, allocated_bytes):
    tensor = numbers(dtype)
    handles = []
    assert allocated_bytes(lambda: handles.append(tensor_to_handle(tensor))) == 0
    assert allocated_bytes(lambda: handles.append(handle_to_tensor(handles[0]))) == 0
    handle, back = handles
    assert (handle.pointer, handle.shape, handle.strides) == (tensor.data_ptr(), (3, 4), (2, 6))
    assert (handle.dtype, handle.device, handle.nbytes) == (dtype, torch.device("cpu"), 12 * dtype.itemsize)
    assert (back.data_ptr(), back.stride(), back.shape, back.dtype) == (tensor.data_ptr(), (2, 6), (3, 4), dtype)


@pytest.mark.parametrize("dtype", SHARED, ids=str)
def test_every_dtype_reaches_numpy_and_comes_back_without_a_copy(dtype, allocated_bytes):
    tensor = numbers(dtype)
    kept = []

    def round_trip():
        array = np.from_dlpack(tensor_to_handle(tensor).bits())
        kept.extend([array, handle_to_tensor(array, dtype=dtype), np.asarray(tensor_to_handle(tensor).bits())])

    assert allocated_bytes(round_trip) == 0
    array, back, through_interface = kept
    assert array.ctypes.data == through_interface.ctypes.data == back.data_ptr() == tensor.data_ptr()
    assert array.strides == through_interface.strides == tuple(step * dtype.itemsize for step in tensor.stride())
    assert (back.dtype, back.stride(), back.shape) == (dtype, tensor.stride(), tensor.shape)


def test_writes_are_seen_on_both_sides():
    tensor = torch.zeros(3)
    handle = tensor_to_handle(tensor)
    array, again = np.asarray(handle), handle_to_tensor(handle)
    array[0] = 1
    again[1] = 2
    tensor[2] = 3
    assert tensor.tolist() == again.tolist() == array.tolist() == [1, 2, 3]


@pytest.mark.parametrize("take", [handle_to_tensor, np.asarray, np.from_dlpack], ids=["tensor", "asarray", "dlpack"])
def test_memory_outlives_the_tensor_it_came_from(take):
    tensor = torch.full((1_000_000,), 7.0)
    gone = weakref.ref(tensor)
    handle = tensor_to_handle(tensor)
    del tensor
    gc.collect()
    assert gone() is None
    taken = take(handle)
    del handle
    gc.collect()
    overwriting = [torch.zeros(1_000_000) for _ in range(4)]  # would land on freed memory
    assert len(overwriting) == 4
    assert (taken == 7).all()


def test_memory_is_freed_when_the_last_user_goes():
    storage = torch.zeros(10)
    gone = weakref.ref(storage.untyped_storage())
    handle = tensor_to_handle(storage)
    del storage, handle
    gc.collect()
    assert gone() is None


def test_a_tensor_is_made_contiguous_only_when_asked():
    tensor = torch.arange(6.0).reshape(2, 3).t()
    assert not tensor_to_handle(tensor).is_contiguous
    made = tensor_to_handle(tensor, contiguous=True)
    assert (made.is_contiguous, made.strides) == (True, (2, 1))
    assert made.pointer != tensor.data_ptr()
    assert handle_to_tensor(made).equal(tensor)
    assert tensor_to_handle(made.tensor, contiguous=True).pointer == made.pointer


@pytest.mark.parametrize("dtype", SHARED, ids=str)
def test_every_dtype_can_be_made_contiguous(dtype):
    tensor = numbers(dtype)
    made = tensor_to_handle(tensor, contiguous=True).bits().tensor
    assert made.is_contiguous()
    assert made.equal(tensor_to_handle(tensor).bits().tensor)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1)])
def test_empty_and_zero_dimensional_tensors_have_handles(shape):
    tensor = torch.ones(shape)
    handle = tensor_to_handle(tensor)
    assert handle_to_tensor(handle).shape == np.asarray(handle).shape == np.from_dlpack(handle).shape == shape
    assert handle_to_tensor(np.asarray(handle)).shape == shape


def test_an_expanded_tensor_keeps_its_zero_strides():
    tensor = torch.ones(3, 1).expand(3, 5)
    assert handle_to_tensor(np.from_dlpack(tensor_to_handle(tensor))).stride() == (1, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: torch.nn.Parameter(torch.ones(2)),
            "`tensor` requires gradients, which cannot follow its memory. Call tensor.detach() first.",
        ),
        (
            lambda: torch.ones(2, dtype=torch.complex64).conj(),
            "`tensor` has its conjugate bit set, which its memory does not show. Call tensor.resolve_conj() first.",
        ),
        (
            lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
            "`tensor` has its negative bit set, which its memory does not show. Call tensor.resolve_neg() first.",
        ),
    ],
    ids=["gradients", "conjugate", "negative"],
)
def test_meaning_that_memory_does_not_hold_is_refused_with_the_remedy(make, message):
    for share in (tensor_to_handle, handle_to_tensor):
        with pytest.raises(SharingError) as raised:
            share(make())
        assert str(raised.value) == message
    assert isinstance(raised.value, BufferError)


def fake():
    with FakeTensorMode():
        return torch.ones(2)


def emptied():
    tensor = torch.ones(2)
    tensor.untyped_storage().resize_(0)
    return tensor


class Wrapper(torch.Tensor):
    """What DTensor and torchao's quantized tensors are: a shape in front of other tensors."""

    @staticmethod
    def __new__(cls):
        return torch.Tensor._make_wrapper_subclass(cls, (2,), dtype=torch.float32)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError("nothing is computed here")


@pytest.mark.parametrize(
    "make",
    [lambda: torch.ones(2, device="meta"), fake, emptied, Wrapper],
    ids=["meta", "fake", "emptied", "wrapper"],
)
def test_a_tensor_without_memory_is_refused(make):
    with pytest.raises(
        UnsupportedError, match=r"^This \w+ on \w+ has no memory of its own to share\. Share a real tensor"
    ):
        tensor_to_handle(make())


def test_a_sparse_tensor_is_refused():
    with pytest.raises(UnsupportedError) as raised:
        tensor_to_handle(torch.ones(2, 2).to_sparse())
    assert str(raised.value) == (
        "A tensor of layout torch.sparse_coo has no single memory to share. Call tensor.to_dense() first."
    )


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")  # torch says once that they will go
@pytest.mark.parametrize("dtype", QUANTIZED, ids=str)
def test_quantized_dtypes_are_refused(dtype):
    with pytest.raises(
        UnsupportedError, match=r"cannot be handed over: its scale is not part of its memory\. Hand over"
    ):
        tensor_to_handle(torch.empty(2, dtype=dtype))


def test_what_is_no_tensor_is_refused():
    with pytest.raises(InvalidConfigError) as raised:
        tensor_to_handle([1, 2])
    assert str(raised.value) == "`tensor` must be a torch.Tensor, not a list."


def test_numpy_is_told_why_it_cannot_read_a_dtype():
    handle = tensor_to_handle(torch.ones(2, dtype=torch.bfloat16))
    assert not hasattr(handle, "__array_interface__")
    assert not hasattr(handle, "__cuda_array_interface__")
    with pytest.raises(SharingError) as raised:
        np.asarray(handle)
    assert str(raised.value) == "NumPy has no dtype for bf16. Hand over handle.bits()."


@pytest.mark.parametrize("dtype", [torch.int4, torch.uint1, torch.bits8], ids=str)
def test_dlpack_is_not_given_a_dtype_that_it_would_lose(dtype):
    with pytest.raises(SharingError, match=r"^DLPack has no dtype for \w+\. Hand over handle\.bits\(\)\.$"):
        tensor_to_handle(torch.empty(2, dtype=dtype)).__dlpack__()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.bool, torch.complex64], ids=str)
def test_another_consumer_of_dlpack_gets_the_dtype(dtype):
    handle = tensor_to_handle(numbers(dtype))
    assert torch.from_dlpack(handle).dtype is dtype
    assert handle.__dlpack_device__() == (1, 0)


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_a_handle_does_not_leave_its_process(leave):
    with pytest.raises(SharingError) as raised:
        leave(tensor_to_handle(torch.ones(2)))
    assert str(raised.value) == (
        "A TensorHandle points into the memory of this process and cannot be pickled or copied. "
        "Send TensorBuffer.from_tensor(tensor) to another process."
    )


def test_bits_of_a_dtype_that_numpy_has_are_the_handle_itself():
    handle = tensor_to_handle(torch.ones(2))
    assert handle.bits() is handle
