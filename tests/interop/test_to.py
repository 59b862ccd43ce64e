"""`to` does what the plan says: the tensor's own memory where that can be, else one copy that is told of, or an error."""

import gc
import sys
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bedstone.core.errors import DeviceMismatchError, UnknownNameError, UnsupportedError
from bedstone.core.events import sink
from bedstone.interop import SharingError, plan_transfer, tensor_to_handle, to, transfer
from bedstone.interop.frameworks import FRAMEWORKS

ALL = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)
SHARED = [dtype for dtype in ALL if not str(dtype).startswith(("torch.qint", "torch.quint"))]
ON_CPU = [name for name in FRAMEWORKS if name != "cupy"]


@pytest.fixture(autouse=True)
def _ready(monkeypatch):
    """Triton interprets; a line that told of its copy tells again in the next test."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(transfer, "_told", set())


@pytest.fixture(params=ON_CPU)
def framework(request):
    """Each framework that works on CPU memory; CI has all of them."""
    pytest.importorskip(FRAMEWORKS[request.param].module)
    return request.param


def numbers(dtype, shape=(4, 6)):
    """A tensor of any dtype with known bits."""
    count = torch.Size(shape).numel() * dtype.itemsize
    return (torch.arange(count) % 2).to(torch.uint8).view(dtype).reshape(shape)


def bits(tensor):
    """The memory of the elements in row-major order."""
    handle = tensor_to_handle(tensor.resolve_conj().resolve_neg(), contiguous=True).bits()
    return handle.tensor.reshape(-1).view(torch.uint8).numpy()


@pytest.mark.parametrize("dtype", SHARED, ids=str)
def test_every_dtype_is_shared_or_refused_as_planned(framework, dtype, address, seen, allocated_bytes):
    tensor = numbers(dtype)
    plan = plan_transfer(tensor, framework)
    assert plan.zero_copy
    if plan.obstacles:
        assert {each.kind for each in plan.obstacles} <= {"dtype", "setting"}
        with pytest.raises(UnsupportedError) as raised:
            to(tensor, framework)
        assert str(raised.value) == f"{plan.obstacles[0].message} {plan.obstacles[0].remedy}"
        return
    kept = []
    assert allocated_bytes(lambda: kept.append(to(tensor, framework, strict=True))) == 0
    (array,) = kept
    assert address(array) == tensor.data_ptr()
    there = getattr(array.dtype, "__name__", str(array.dtype))  # Warp's dtypes are classes
    assert plan.dtype.split(",")[0].replace("_", "") == there.removeprefix("torch.").replace("_", "")
    if plan.carrier in FRAMEWORKS["numpy"].dtypes["cpu"]:
        assert np.array_equal(seen(array), tensor.view(plan.carrier).numpy())


VIEWS = {
    "as it is": (lambda tensor: tensor, set()),
    "transposed": (lambda tensor: tensor.t(), set()),
    "every other column": (lambda tensor: tensor[:, ::2], {"jax"}),
    "every other row": (lambda tensor: tensor[::2], {"jax"}),
    "expanded": (lambda tensor: tensor[:1].expand(4, 6), {"jax"}),
    "from the second element on": (lambda tensor: tensor.view(-1)[1:], {"jax"}),
    "a row of one": (lambda tensor: tensor[:1, :1], set()),
    "empty": (lambda tensor: tensor[:0], set()),
    "empty in the middle": (lambda tensor: tensor[1:1, 3:], set()),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_strides_are_shared_or_copied_as_planned(framework, kind, address, seen):
    cut, copied_by = VIEWS[kind]
    view = cut(torch.arange(24.0).reshape(4, 6))
    plan = plan_transfer(view, framework)
    assert plan.zero_copy is (framework not in copied_by)
    if not plan.zero_copy:
        with pytest.raises(SharingError) as raised:
            to(view, framework, strict=True)
        assert str(raised.value) == (
            f"{framework} cannot take this memory without a copy of {view.numel() * 4} bytes: {plan.copy_reason}. "
            "Hand over a tensor that it can take, or pass strict=False."
        )
        assert (raised.value.copy_bytes, raised.value.reason) == (view.numel() * 4, plan.copy_reason)
    array = to(view, framework)
    assert tuple(array.shape) == view.shape
    assert np.array_equal(seen(array), view.numpy())
    if view.numel():
        assert (address(array) == view.data_ptr()) is plan.zero_copy


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_jax_is_understood_for_any_view(data):
    """JAX raises or copies where the plan says copy, and nowhere else."""
    pytest.importorskip("jax")
    tensor = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    cut = st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(1, 2)).map(lambda cut: slice(*cut))
    view = tensor[data.draw(st.tuples(cut, cut, cut, cut))].permute(data.draw(st.permutations(range(4))))
    array = to(view, "jax", strict=plan_transfer(view, "jax").zero_copy)
    assert np.array_equal(np.asarray(array), view.numpy())


@pytest.mark.parametrize("share", ["conjugate", "negative"])
def test_lazy_bits_are_carried_out_by_one_copy(framework, share, allocated_bytes, seen):
    lazy = torch.tensor([1 + 2j, 3 + 4j]).conj()
    lazy = lazy if share == "conjugate" else lazy.imag
    plan = plan_transfer(lazy, framework)
    assert plan.copy_reason == f"its {share} bit is set, which its memory does not show"
    assert plan.copy_bytes == lazy.numel() * lazy.element_size()
    if plan.obstacles:  # no complex numbers there
        return
    with pytest.raises(SharingError, match=rf"without a copy of {plan.copy_bytes} bytes: its {share} bit is set"):
        to(lazy, framework, strict=True)
    kept = []
    assert allocated_bytes(lambda: kept.append(to(lazy, framework))) == plan.copy_bytes
    assert np.array_equal(seen(kept[0]), lazy.resolve_conj().resolve_neg().numpy())


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning")  # torch says so once
def test_a_lazy_bit_of_a_dtype_that_travels_as_bits_is_carried_out_before(seen):
    half = torch.view_as_complex(torch.tensor([[1.0, 2.0]], dtype=torch.float16)).conj()
    array = to(half, "numpy")
    assert np.array_equal(array.view(np.float16), np.array([1, -2], np.float16))


@pytest.mark.parametrize("framework", ON_CPU)
def test_gradients_are_refused_and_never_dropped(framework):
    with pytest.raises(SharingError) as raised:
        to(torch.ones(2, requires_grad=True), framework)
    assert str(raised.value) == (
        "`tensor` requires gradients, which cannot follow its memory. Call tensor.detach() first."
    )


def test_writes_are_seen_on_both_sides(framework, seen):
    tensor = torch.zeros(3)
    array = to(tensor, framework)
    tensor[0] = 5
    assert seen(array).tolist() == [5, 0, 0]
    if plan_transfer(tensor, framework).writable:
        seen(array)[1] = 6
        assert tensor.tolist() == [5, 6, 0]
    else:
        with pytest.raises(TypeError, match="immutable"):
            array[1] = 6


def test_memory_outlives_the_tensor_it_came_from(framework, seen):
    tensor = torch.full((1_000_000,), 7.0)
    array = to(tensor, framework)
    del tensor
    gc.collect()
    overwriting = [torch.zeros(1_000_000) for _ in range(4)]  # would land on freed memory
    assert len(overwriting) == 4
    assert (seen(array) == 7).all()


def test_the_tensor_outlives_the_array(framework):
    tensor = torch.full((1_000_000,), 7.0)
    array = to(tensor, framework)
    del array
    gc.collect()
    overwriting = [torch.zeros(1_000_000) for _ in range(4)]
    assert len(overwriting) == 4
    assert (tensor == 7).all()


def test_memory_is_freed_when_the_last_user_goes(framework):
    tensor = torch.zeros(10)
    base = weakref.ref(tensor)
    array = to(tensor, framework)
    del tensor, array
    gc.collect()
    assert base() is None


@pytest.mark.parametrize("shape", [(), (1, 1, 1, 1, 2)])
def test_dimensions_that_warp_lacks_are_refused_and_others_have(framework, shape, seen):
    tensor = torch.ones(shape)
    if framework != "warp":
        assert np.array_equal(seen(to(tensor, framework, strict=True)), np.ones(shape))
        return
    with pytest.raises(UnsupportedError) as raised:
        to(tensor, framework)
    remedy = "Flatten some first (tensor.flatten, tensor.view)." if shape else "Call tensor.view(1) first."
    assert str(raised.value) == (f"Warp's arrays have 1 to 4 dimensions, and this tensor has {len(shape)}. {remedy}")


def test_jax_keeps_64_bits_where_they_are_on(address):
    jax = pytest.importorskip("jax")
    wide = torch.tensor([2**40])
    with pytest.raises(UnsupportedError) as raised:
        to(wide, "jax")
    assert str(raised.value) == (
        "JAX would cut torch.int64 to torch.int32 without a word: its 64-bit numbers are off. "
        'Call jax.config.update("jax_enable_x64", True), or tensor.to(torch.int32) first.'
    )
    with jax.enable_x64(True):
        array = to(wide, "jax", strict=True)
        assert (address(array), array.tolist()) == (wide.data_ptr(), [2**40])
    with pytest.raises(UnsupportedError):
        to(wide, "jax")


def test_triton_gets_the_tensor_itself():
    pytest.importorskip("triton")
    tensor = torch.ones(2)
    assert to(tensor, "triton", strict=True) is tensor


def test_triton_without_its_interpreter_cannot_read_a_cpu(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(DeviceMismatchError) as raised:
        to(torch.ones(2), "triton")
    assert str(raised.value) == (
        "Triton works on CPU memory in its interpreter only, which is off. "
        'Set TRITON_INTERPRET=1 before Python starts, or call tensor.to("cuda").'
    )


@pytest.mark.parametrize("name", ON_CPU)
def test_a_missing_framework_is_an_error_with_the_line_that_installs_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, FRAMEWORKS[name].module, None)
    with pytest.raises(UnsupportedError) as raised:
        to(torch.ones(2), name)
    assert (
        str(raised.value) == f"{FRAMEWORKS[name].title} is not installed. Run `pip install {FRAMEWORKS[name].package}`."
    )
    assert raised.value.feature == name


def test_a_cpu_tensor_is_refused_by_cupy_with_all_that_is_in_the_way():
    with pytest.raises(DeviceMismatchError) as raised:
        to(torch.ones(2), "cupy")
    assert str(raised.value).startswith(
        'CuPy reads memory on cuda, and this tensor lies on cpu. Call tensor.to("cuda") first, which copies. '
        "CuPy is not installed. Run `pip install cupy-cuda1"
    )
    assert (raised.value.expected, raised.value.actual) == ("cuda", "cpu")


def broken_tvm_ffi(monkeypatch, folder):
    """Have the `tvm_ffi` in a folder imported from now on, and the one from before again after the test."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(sys.modules, "tvm_ffi", None)
    del sys.modules["tvm_ffi"]


def test_a_framework_that_does_not_load_says_why(monkeypatch, tmp_path):
    """Installed, and broken: here a package of the name that raises when it is imported."""
    (tmp_path / "tvm_ffi.py").write_text("raise ImportError('libtvm is of another world')")
    broken_tvm_ffi(monkeypatch, tmp_path)
    with pytest.raises(UnsupportedError) as raised:
        to(torch.ones(2), "tvm_ffi")
    assert str(raised.value) == (
        "TVM-FFI is installed and does not load: libtvm is of another world. Run `pip install apache-tvm-ffi`."
    )


def test_a_framework_that_refuses_all_the_same_is_quoted(monkeypatch, tmp_path):
    """No copy is tried instead."""
    (tmp_path / "tvm_ffi.py").write_text("def from_dlpack(tensor):\n    raise BufferError('not on a Friday')")
    broken_tvm_ffi(monkeypatch, tmp_path)
    with pytest.raises(SharingError) as raised:
        to(torch.ones(2), "tvm_ffi")
    assert str(raised.value) == (
        "TVM-FFI refused torch.float32 of shape (2,) on cpu: not on a Friday Try tensor.clone(), which lies elsewhere."
    )


def test_an_unknown_framework_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'numba'"):
        to(torch.ones(2), "numbas")


def copy_for_jax(view):
    return to(view, "jax")


def test_a_copy_is_told_once_for_a_line():
    pytest.importorskip("jax")
    view = torch.arange(24.0).reshape(4, 6)[:, ::2]
    events = []
    with sink(events.append):
        for _ in range(3):
            copy_for_jax(view)
        to(view, "jax")
        to(view.contiguous(), "jax")
    told = [event for event in events if event.name == "transfer_copied"]
    lines = (copy_for_jax.__code__.co_firstlineno + 1, test_a_copy_is_told_once_for_a_line.__code__.co_firstlineno + 7)
    assert [event.location for event in told] == [f"{__file__}:{line}" for line in lines]
    assert told[0].message() == (
        f"{told[0].location} hands jax a copy of 48 bytes: JAX takes no gaps between elements and none twice, "
        "and the strides are (6, 2). This is told once for this line; strict=True refuses copies."
    )
