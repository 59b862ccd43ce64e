"""Memory that is allocated before a loop is all that the loop uses: nothing is allocated after the first turn."""

import gc
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from bedstone.interop import allocate_output_buffer, to
from bedstone.interop.frameworks import FRAMEWORKS

TURNS = 50


def numpy_kernel():
    def scaled(source, out):
        np.multiply(source, 2, out=out)

    return scaled


def numba_kernel():
    @pytest.importorskip("numba").njit
    def scaled(source, out):
        for index in range(source.size):
            out[index] = source[index] * 2

    return scaled


@pytest.mark.parametrize(("framework", "kernel"), [("numpy", numpy_kernel), ("numba", numba_kernel)])
def test_a_kernel_in_a_loop_allocates_nothing_after_the_first_turn(framework, kernel, allocated_bytes):
    run = kernel()
    source, out = torch.ones(100_000), allocate_output_buffer((100_000,), "f32", "cpu")
    address = out.data_ptr()

    def turn():
        run(to(source, framework, strict=True), to(out, framework, strict=True))

    def loop():
        for _ in range(TURNS):
            turn()

    turn()  # compiles, and makes the plan
    assert allocated_bytes(loop) == 0
    gc.collect()
    tracemalloc.start()  # Python's objects, and NumPy's arrays
    try:
        turn()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        loop()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < TURNS  # less than a byte a turn stays
    assert peak - before < 4096  # an array's header and a frame, not 400,000 bytes
    assert (out.data_ptr(), out.unique().tolist()) == (address, [2.0])


def test_the_loop_would_be_seen_to_allocate(allocated_bytes):
    """A kernel that returns its result is what the test above would catch."""
    source = torch.ones(1000)
    assert allocated_bytes(lambda: [to(source * 2, "numpy") for _ in range(3)]) >= 3 * 4000


TRITON = """
import torch, triton, triton.language as tl
from bedstone.interop import allocate_output_buffer, to

@triton.jit
def double(source, out, count, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + index, tl.load(source + index, mask=index < count) * 2, mask=index < count)

source, out = torch.arange(10.0), allocate_output_buffer((10,), "f32", "cpu")
address = out.data_ptr()
for _ in range(3):
    double[(3,)](to(source, "triton", strict=True), to(out, "triton", strict=True), 10, BLOCK=4)
assert out.tolist() == (source * 2).tolist() and out.data_ptr() == address
wrong = torch.empty(4, dtype=torch.bfloat16)
double[(1,)](torch.ones(4, dtype=torch.bfloat16), wrong, 4, BLOCK=4)
print(to(out, "triton") is out, "bfloat16 is mended" if wrong.tolist() == [2.0] * 4 else "bfloat16 is wrong, as the page says")
"""


def test_triton_interprets_a_kernel_on_the_same_memory(tmp_path):
    """In a process of its own: whether Triton interprets is settled when it is imported."""
    pytest.importorskip(FRAMEWORKS["triton"].module)
    program = tmp_path / "program.py"
    program.write_text(TRITON)
    environment = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, "True bfloat16 is wrong, as the page says\n"), done.stderr


def test_warp_writes_into_the_buffer():
    """Compiled for the CPU by Warp's own compiler."""
    warp = pytest.importorskip("warp")

    @warp.kernel
    def double(source: warp.array(dtype=warp.float32), out: warp.array(dtype=warp.float32)):
        index = warp.tid()
        out[index] = source[index] * 2.0

    source, out = torch.arange(10.0), allocate_output_buffer((10,), "f32", "cpu")
    for _ in range(3):
        arrays = [to(source, "warp", strict=True), to(out, "warp", strict=True)]
        warp.launch(double, dim=10, inputs=arrays, device="cpu")
    assert torch.equal(out, source * 2)
