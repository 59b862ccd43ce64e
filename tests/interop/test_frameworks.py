"""What other frameworks do to memory without saying so, which is why a plan looks before it hands anything over.

When one of these fails, the framework has changed and a rule of ours can go.
"""

import numpy as np
import pytest
import torch

from bedstone.interop import SharingError, handle_to_tensor, to
from bedstone.interop.frameworks import FRAMEWORKS


def test_jax_cuts_64_bit_numbers_in_silence():
    dlpack = pytest.importorskip("jax.dlpack")
    assert dlpack.from_dlpack(torch.tensor([2**40 + 1])).tolist() == [1]


def test_jax_copies_what_is_not_aligned_in_silence():
    dlpack = pytest.importorskip("jax.dlpack")
    shifted = torch.ones(32)[1:]
    assert dlpack.from_dlpack(shifted).unsafe_buffer_pointer() != shifted.data_ptr()


@pytest.mark.parametrize(
    "make", [lambda: torch.ones(2, requires_grad=True), lambda: torch.ones(2, 2).cfloat().conj().imag]
)
def test_tvm_ffi_takes_memory_that_does_not_show_the_numbers(make):
    """Gradients are cut off, and the negative bit is dropped: -0.0 becomes 0.0."""
    tvm_ffi = pytest.importorskip("tvm_ffi")
    tensor = make()
    assert tvm_ffi.from_dlpack(tensor).data_ptr() == tensor.data_ptr()


def test_tvm_ffi_takes_integers_below_a_byte_for_bytes():
    tvm_ffi = pytest.importorskip("tvm_ffi")
    assert str(tvm_ffi.from_dlpack(torch.zeros(2, dtype=torch.uint8).view(torch.int4)).dtype) == "int8"


def test_numba_has_no_float16_on_a_cpu():
    numba = pytest.importorskip("numba")
    with pytest.raises(NotImplementedError, match="float16"):
        numba.njit(lambda array: array.size)(np.zeros(2, np.float16))


@pytest.mark.parametrize("shape", [(), (1, 1, 1, 1, 2)])
def test_warp_has_one_to_four_dimensions(shape):
    warp = pytest.importorskip("warp")
    warp.init()
    with pytest.raises((IndexError, RuntimeError)):
        warp.from_dlpack(torch.zeros(shape))


DTYPES = [torch.float32, torch.int32, torch.bool, torch.bfloat16, torch.float8_e5m2]


@pytest.mark.parametrize("framework", ["numpy", "jax", "numba", "warp", "tvm_ffi"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_array_comes_back_on_the_same_memory(framework, dtype, allocated_bytes):
    """Whatever went out, as bits or as it is, comes back as it was."""
    pytest.importorskip(FRAMEWORKS[framework].module)
    tensor = torch.zeros(24 * dtype.itemsize, dtype=torch.uint8).view(dtype).reshape(4, 6).t()
    kept = []
    array = to(tensor, framework, strict=True)
    assert allocated_bytes(lambda: kept.append(handle_to_tensor(array, dtype=dtype, device="cpu", shape=(6, 4)))) == 0
    assert (kept[0].data_ptr(), kept[0].stride()) == (tensor.data_ptr(), (1, 6))


def test_memory_that_a_framework_made_becomes_a_tensor():
    jnp, warp, tvm_ffi = (pytest.importorskip(name) for name in ("jax.numpy", "warp", "tvm_ffi"))
    for array, address in (
        (ours := jnp.arange(6.0), ours.unsafe_buffer_pointer()),
        (ours := warp.full(6, 2.0, dtype=warp.float32, device="cpu"), ours.ptr),
        (ours := tvm_ffi.from_dlpack(np.arange(6.0)), ours.data_ptr()),
    ):
        assert handle_to_tensor(array).data_ptr() == address


class OnGpu:
    """What Numba's device arrays are for others: an interface, and no DLPack."""

    @property
    def __cuda_array_interface__(self):
        return {"version": 3, "shape": (2,), "typestr": "<f4", "data": (4096, False), "strides": None}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a PyTorch without CUDA")
def test_memory_on_a_gpu_is_refused_by_a_torch_that_has_none():
    with pytest.raises(SharingError) as raised:
        handle_to_tensor(OnGpu())
    assert str(raised.value) == (
        "The memory of a OnGpu lies on a GPU, which this PyTorch cannot use. "
        "Copy it to the host in its own framework, or install a PyTorch with CUDA."
    )
