"""A tensor on foreign memory: shared where that is right, refused with a remedy where it is not, copied only when asked."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.errors import DeviceMismatchError, InvalidConfigError, ShapeMismatchError, UnknownNameError
from bedstone.interop import SharingError, TensorBuffer, handle_to_tensor, tensor_to_handle

NUMPY_DTYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"]


@pytest.mark.parametrize("name", NUMPY_DTYPES)
def test_numpy_memory_is_taken_as_it_is(name, allocated_bytes):
    array = np.zeros((4, 6), dtype=name).T[::2]
    kept = []
    assert allocated_bytes(lambda: kept.append(handle_to_tensor(array))) == 0
    tensor = kept[0]
    assert tensor.data_ptr() == array.ctypes.data
    assert tuple(step * tensor.element_size() for step in tensor.stride()) == array.strides
    assert str(tensor.dtype).removeprefix("torch.") == array.dtype.name


def test_numpy_memory_outlives_its_array():
    array = np.full(1_000_000, 7.0)
    gone = weakref.ref(array)
    tensor = handle_to_tensor(array)
    del array
    gc.collect()
    assert gone() is not None
    assert (tensor == 7).all()
    del tensor
    gc.collect()
    assert gone() is None


@given(st.data())
def test_any_view_with_positive_strides_is_shared_exactly(data):
    array = np.arange(360).reshape(3, 4, 5, 6)
    cut = st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(1, 3)).map(lambda cut: slice(*cut))
    view = array[data.draw(st.tuples(cut, cut, cut, cut))].transpose(data.draw(st.permutations(range(4))))
    tensor = handle_to_tensor(view)
    assert tensor.shape == view.shape
    assert np.array_equal(tensor.numpy(), view)
    if view.size:
        assert tensor.data_ptr() == view.ctypes.data


def frozen(array):
    array.flags.writeable = False
    return array


REFUSED = {
    "read-only": (
        lambda: frozen(np.arange(3.0)),
        (
            "The memory of this ndarray is read-only, and a tensor can always be written. "
            "Pass copy=True, or make it writable first."
        ),
    ),
    "negative strides": (
        lambda: np.arange(3.0)[::-1],
        (
            "The memory of this ndarray has negative strides (-1,), which torch lacks. "
            "Copy the ndarray in row-major order before handing it over (numpy.ascontiguousarray)."
        ),
    ),
    "odd address": (
        lambda: np.zeros(17, dtype=np.uint8)[1:].view(np.float32),
        "The memory of this ndarray starts at an address that elements of 4 bytes cannot have. Pass copy=True.",
    ),
    "byte order": (
        lambda: np.arange(3, dtype=">f4"),
        (
            "The memory of a ndarray cannot be shared through DLPack: DLPack only supports native byte order. "
            "Convert it to a plain numeric dtype in native byte order, or copy it, before handing it over."
        ),
    ),
    "strides between bytes": (
        lambda: np.zeros(3, dtype=[("a", "u1"), ("b", "<f4")])["b"],
        (
            "The memory of a ndarray cannot be shared through DLPack: "
            "DLPack only supports strides which are a multiple of itemsize. "
            "Convert it to a plain numeric dtype in native byte order, or copy it, before handing it over."
        ),
    ),
    "text": (
        lambda: np.array(["a"]),
        (
            "The memory of a ndarray cannot be shared through DLPack: "
            "DLPack only supports signed/unsigned integers, float and complex dtypes. "
            "Convert it to a plain numeric dtype in native byte order, or copy it, before handing it over."
        ),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_memory_that_torch_cannot_hold_is_refused_with_a_remedy(kind):
    make, message = REFUSED[kind]
    with pytest.raises(SharingError) as raised:
        handle_to_tensor(make())
    assert str(raised.value) == message


@pytest.mark.parametrize("kind", ["read-only", "odd address"])
def test_memory_that_can_only_be_copied_is_copied_when_asked(kind):
    array = REFUSED[kind][0]()
    tensor = handle_to_tensor(array, copy=True)
    assert tensor.data_ptr() != array.ctypes.data
    assert np.array_equal(tensor.numpy(), array)
    tensor += 1


@pytest.mark.parametrize(
    "make", [lambda t: t, tensor_to_handle, lambda t: t.numpy()], ids=["tensor", "handle", "array"]
)
def test_a_copy_is_private(make):
    tensor = torch.arange(6.0).reshape(2, 3).t()
    private = handle_to_tensor(make(tensor), copy=True)
    private += 1
    assert tensor.equal(private - 1)


def test_a_negative_stride_of_a_dimension_of_one_is_no_matter():
    assert handle_to_tensor(np.arange(3.0)[::-1][:1]).tolist() == [2.0]
    assert handle_to_tensor(np.arange(3.0)[:0][::-1]).tolist() == []


class Producer:
    """Another library's array, in an older or newer form of the protocol."""

    def __init__(self, tensor, *, form):
        self.tensor, self.form = tensor, form

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()

    def __dlpack__(self, **options):
        if set(options) - set(self.form):
            raise TypeError("an older form")
        return self.tensor.__dlpack__(**options)


@pytest.mark.parametrize("form", [(), ("max_version",), ("max_version", "copy")], ids=["first", "1.0", "with copy"])
@pytest.mark.parametrize("copy", [False, True])
def test_every_form_of_the_protocol_is_spoken(form, copy):
    tensor = torch.arange(6.0).reshape(2, 3).t()
    taken = handle_to_tensor(Producer(tensor, form=form), copy=copy)
    assert (taken.data_ptr() == tensor.data_ptr()) is not copy
    assert taken.equal(tensor)


class Broken(Producer):
    def __dlpack__(self, **options):
        raise TypeError("never")


def test_a_producer_that_fails_is_named_with_its_reason():
    with pytest.raises(
        SharingError, match=r"^The memory of a Broken cannot be shared through DLPack: never Convert"
    ) as raised:
        handle_to_tensor(Broken(torch.ones(1), form=()))
    assert isinstance(raised.value.__cause__, TypeError)


@pytest.mark.parametrize("source", [[1.0], b"abc", None, 3])
def test_what_offers_no_memory_is_refused(source):
    with pytest.raises(InvalidConfigError) as raised:
        handle_to_tensor(source)
    assert str(raised.value) == (
        f"`source` (a {type(source).__name__}) must be a TensorHandle, a TensorBuffer, a tensor, or offer __dlpack__."
    )


SOURCES = [
    np.ones((2, 3), "f4"),
    torch.ones(2, 3),
    tensor_to_handle(torch.ones(2, 3)),
    TensorBuffer(bytes(24), (2, 3), "f32"),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_expectations_are_checked_for_every_source(source):
    assert handle_to_tensor(source, dtype="f32", device="cpu", shape=[2, 3]).shape == (2, 3)
    with pytest.raises(ShapeMismatchError) as shape:
        handle_to_tensor(source, shape=(3, 2))
    assert str(shape.value) == "`source` has shape (2, 3), expected (3, 2)."
    with pytest.raises(InvalidConfigError) as dtype:
        handle_to_tensor(source, dtype=torch.float64)
    assert str(dtype.value) == (
        "`source` has dtype f32, expected f64. Take it as it is and call .to(torch.float64), which copies."
    )
    with pytest.raises(UnknownNameError, match="No dtype is called 'f61'"):
        handle_to_tensor(source, dtype="f61")


@pytest.mark.parametrize("source", SOURCES[:3], ids=lambda source: type(source).__name__)
def test_memory_on_another_device_is_not_moved(source):
    with pytest.raises(DeviceMismatchError) as raised:
        handle_to_tensor(source, device="cuda:1")
    assert str(raised.value) == (
        "`source` has device cpu, expected cuda:1. Take it where it is and call .to('cuda:1'), which copies."
    )
    with pytest.raises(InvalidConfigError) as unknown:
        handle_to_tensor(source, device="gpu0")
    assert str(unknown.value) == (
        "`device` (='gpu0') is not a device that torch knows. Write, for example, 'cpu', 'cuda:0', 'mps' or 'xpu:1'."
    )


@pytest.mark.parametrize(
    ("carrier", "dtype", "becomes"),
    [
        ("u2", "bf16", True), ("u1", "f8_e4m3fn", True), ("u4", "c32", True), ("u1", "u4", True), ("u2", "bits16", True),
        ("u2", "f16", False), ("i2", "bf16", False), ("u4", "f32", False), ("u2", "f8_e5m2", False), ("f2", "bf16", False),
    ],
)  # fmt: skip
def test_integers_become_a_dtype_that_numpy_lacks_and_no_other(carrier, dtype, becomes):
    array = np.ones(4, dtype=carrier)
    if becomes:
        assert handle_to_tensor(array, dtype=dtype).data_ptr() == array.ctypes.data
    else:
        with pytest.raises(InvalidConfigError, match=r"^`source` has dtype \w+, expected \w+\. Take it as it is"):
            handle_to_tensor(array, dtype=dtype)


def test_memory_mapped_files_are_shared(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(64))
    handle_to_tensor(np.memmap(path, dtype=np.float32, mode="r+"))[0] = 1.0
    gc.collect()
    assert np.fromfile(path, dtype=np.float32)[0] == 1.0
    with pytest.raises(SharingError, match="The memory of this memmap is read-only"):
        handle_to_tensor(np.memmap(path, dtype=np.float32, mode="r"))


def test_the_tensor_does_not_require_gradients_and_is_its_own():
    tensor = torch.ones(2)
    taken = handle_to_tensor(tensor)
    taken.requires_grad_()
    assert not tensor.requires_grad
