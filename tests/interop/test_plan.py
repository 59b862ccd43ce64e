"""A plan says what would happen before anything does: the way, the dtype there, the copy with its reason, the obstacle."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bedstone.core.errors import CoreError, InvalidConfigError, UnknownNameError, UnsupportedError
from bedstone.interop import SharingError, plan_transfer
from bedstone.interop.frameworks import FRAMEWORKS, framework_named
from bedstone.interop.plan import planned

NAMES = sorted(FRAMEWORKS)
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "share-memory-with-a-kernel-framework.md"


def on_cuda(framework, dtype=torch.float32, shape=(2, 3)):
    """The plan for a tensor on a GPU that is not here."""
    with FakeTensorMode():
        return planned(torch.empty(shape, dtype=dtype, device="cuda"), framework, framework_named(framework))


def test_a_plan_reads_as_a_line():
    plan = plan_transfer(torch.ones(2, 3), "numpy")
    assert (plan.zero_copy, plan.copy_reason, plan.copy_bytes, plan.obstacles) == (True, "", 0, ())
    assert str(plan) == (
        "numpy: zero-copy by tensor.numpy(); float32, writable; kept alive by the array, which holds the tensor"
    )


def test_a_copy_is_planned_with_reason_and_bytes():
    plan = plan_transfer(torch.ones(4, 6)[:, ::2], "jax")
    assert (plan.zero_copy, plan.copy_bytes) == (False, 48)
    assert str(plan).startswith(
        "jax: a copy of 48 bytes, since JAX takes no gaps between elements and none twice, and the strides are (6, 2); "
        "by jax.dlpack.from_dlpack(tensor, copy=False); float32, read-only there; kept alive by "
    )


DTYPES_THERE = {
    ("numpy", torch.bfloat16): "uint16, the bits of bfloat16",
    ("numpy", torch.float8_e4m3fn): "uint8, the bits of float8_e4m3fn",
    ("numpy", torch.uint4): "uint8, the bits of uint4",
    ("numpy", torch.complex32): "uint32, the bits of complex32",
    ("numpy", torch.complex64): "complex64",
    ("jax", torch.bfloat16): "bfloat16",
    ("jax", torch.float8_e8m0fnu): "float8_e8m0fnu",
    ("jax", torch.float4_e2m1fn_x2): "uint8, the bits of float4_e2m1fn_x2",
    ("numba", torch.float16): "uint16, the bits of float16",
    ("warp", torch.bfloat16): "bfloat16",
    ("warp", torch.float8_e5m2): "uint8, the bits of float8_e5m2",
    ("triton", torch.float8_e5m2): "float8_e5m2",
    ("triton", torch.float8_e8m0fnu): "uint8, the bits of float8_e8m0fnu",
    ("tvm_ffi", torch.float4_e2m1fn_x2): "float4_e2m1fn_x2",
    ("tvm_ffi", torch.int4): "uint8, the bits of int4",
}


@pytest.mark.parametrize(("framework", "dtype"), DTYPES_THERE, ids=str)
def test_a_dtype_that_a_framework_lacks_travels_as_bits(framework, dtype):
    tensor = torch.zeros(8, dtype=torch.uint8).view(dtype)
    assert plan_transfer(tensor, framework).dtype == DTYPES_THERE[framework, dtype]


def test_numba_has_float16_on_a_gpu_only():
    assert on_cuda("numba", torch.float16).dtype == "float16"
    assert on_cuda("numba").call == "numba.cuda.as_cuda_array(handle)"


@pytest.mark.parametrize("framework", ["cupy", "jax", "numba", "warp", "triton", "tvm_ffi"])
def test_memory_on_a_gpu_is_shared(framework):
    plan = on_cuda(framework)
    assert plan.zero_copy
    assert {each.kind for each in plan.obstacles} <= {"missing"}


def test_numpy_cannot_read_a_gpu():
    (obstacle,) = on_cuda("numpy").obstacles
    assert obstacle.message == "NumPy reads memory on cpu, and this tensor lies on cuda:0."
    assert obstacle.remedy == 'Call tensor.to("cpu") first, which copies.'


@pytest.mark.parametrize("framework", ["warp", "triton", "tvm_ffi"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_numbers_are_not_made_bits_in_silence(framework, dtype):
    obstacle = next(each for each in on_cuda(framework, dtype).obstacles if each.kind == "dtype")
    assert obstacle.message == f"{FRAMEWORKS[framework].title} has no {dtype}."
    assert obstacle.remedy == "Hand over torch.view_as_real(tensor)."


def test_a_missing_framework_is_planned_for_all_the_same():
    """CuPy is never here: it needs a GPU."""
    plan = on_cuda("cupy", torch.bfloat16)
    (obstacle,) = plan.obstacles
    assert (obstacle.kind, obstacle.message) == ("missing", "CuPy is not installed.")
    assert obstacle.remedy.startswith("Run `pip install cupy-cuda1")
    assert str(plan).splitlines() == [
        "cupy: not possible here",
        f"  {obstacle.message} {obstacle.remedy}",
        (
            "  Without that: zero-copy by cupy.from_dlpack(tensor); uint16, the bits of bfloat16, writable; "
            "kept alive by the array, which holds the tensor"
        ),
    ]


@pytest.mark.parametrize("framework", NAMES)
def test_a_framework_that_goes_missing_is_noticed(framework, monkeypatch):
    """Also after a plan without obstacle was made and kept."""
    tensor = torch.ones(3)
    before = {each.kind for each in plan_transfer(tensor, framework).obstacles}
    monkeypatch.setitem(sys.modules, FRAMEWORKS[framework].module, None)
    after = {each.kind for each in plan_transfer(tensor, framework).obstacles}
    assert after == before | {"missing"}


def test_planning_imports_no_framework():
    program = (
        "import sys, torch\n"
        "from bedstone import interop\n"
        "before = set(sys.modules)\n"
        f"for name in {NAMES}: str(interop.plan_transfer(torch.ones(4, 4)[:, ::2], name))\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}))\n"
        "print({'cupy', 'jax', 'numba', 'tvm_ffi', 'warp'} & before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nset()\n"


def test_an_unknown_framework_is_refused_with_those_that_are_known():
    with pytest.raises(UnknownNameError) as raised:
        plan_transfer(torch.ones(2), "jaxx")
    assert str(raised.value) == (
        "No framework is called 'jaxx'. Did you mean 'jax'? Known: cupy, jax, numba, numpy, triton, tvm_ffi, warp."
    )
    with pytest.raises(UnknownNameError, match="No framework is called '3'"):
        plan_transfer(torch.ones(2), 3)
    with pytest.raises(UnknownNameError, match=r"No framework is called '\[\]'"):
        plan_transfer(torch.ones(2), [])


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")  # torch says once that they will go
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: [1, 2], InvalidConfigError, "`tensor` must be a torch.Tensor, not a list."),
        (
            lambda: torch.ones(2, 2).to_sparse(),
            UnsupportedError,
            "A tensor of layout torch.sparse_coo has no single memory to share. Call tensor.to_dense() first.",
        ),
        (
            lambda: torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8),
            UnsupportedError,
            (
                "A tensor of qint8 cannot be handed over: its scale is not part of its memory. "
                "Hand over tensor.int_repr(), and the scale beside it."
            ),
        ),
        (
            lambda: torch.ones(2, device="meta"),
            UnsupportedError,
            (
                "This Tensor on meta has no memory of its own to share. "
                "Share a real tensor, or the tensors that this one wraps."
            ),
        ),
        (
            lambda: torch.nn.Parameter(torch.ones(2)),
            SharingError,
            "`tensor` requires gradients, which cannot follow its memory. Call tensor.detach() first.",
        ),
    ],
    ids=["list", "sparse", "quantized", "meta", "gradients"],
)
@pytest.mark.parametrize("framework", NAMES)
def test_what_no_framework_could_take_is_refused(make, error, message, framework):
    with pytest.raises(CoreError) as raised:
        plan_transfer(make(), framework)
    assert type(raised.value) is error
    assert str(raised.value) == message


def test_the_page_on_kernel_frameworks_says_what_they_take():
    """Its table of devices, dtypes and whether arrays may be written, and the plans that it prints."""
    page = PAGE.read_text(encoding="utf-8")
    kinds = {"bfloat16": torch.bfloat16, "float8": torch.float8_e4m3fn, "complex": torch.complex64}
    expected = []
    for name, taker in FRAMEWORKS.items():
        has = next(iter(taker.dtypes.values()))
        cells = [
            "yes" if dtype in has else "refused" if dtype.is_complex else f"uint{8 * dtype.itemsize} bits"
            for dtype in kinds.values()
        ]
        written = "writable" if taker.writable else "read-only"
        expected.append(f"| `{name}` | {', '.join(taker.dtypes)} | {' | '.join(cells)} | {written} |")
    rows = page.partition("## What travels how")[2].splitlines()
    assert [line for line in rows if line.startswith("| `")] == expected
    x = torch.randn(8, 256)
    assert f"\n{plan_transfer(x, 'warp')}\n{plan_transfer(x[:, ::2], 'jax')}\n" in page
    if torch.version.cuda is None:  # with CUDA, CuPy may be there or have another package
        assert f"\n{plan_transfer(x.bfloat16(), 'cupy')}\n" in page
