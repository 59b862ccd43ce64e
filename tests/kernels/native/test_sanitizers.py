"""No function of the compiled CPU library touches memory beyond its buffers or computes something undefined, whatever the shape."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bedstone.kernels.native import library

SOURCES = Path(library.__file__).parent / "cpp"
X86 = {
    "isa_avx2.cpp": ["-mavx2", "-mfma", "-mf16c"],
    "isa_avx512.cpp": (avx512 := ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"]),
    "isa_avx512_vnni.cpp": [*avx512, "-mavx512vnni"],
}
FUZZ = """
import random, sys
from pathlib import Path
import torch
from bedstone.kernels.native import library
library._find = lambda: Path(sys.argv[1])
from bedstone.kernels import eightbit, fourbit, ternary, native
random.seed(0)
torch.manual_seed(0)
assert native.isas(), native.status()
for _ in range(150):
    native.use_isa(random.choice(native.isas()))
    torch.set_num_threads(random.choice([1, 2, 3]))
    rows, columns, inputs = random.choice([1, 2, 7, 33]), random.choice([1, 2, 3, 31, 64, 95, 130, 257, 512]), random.randint(1, 18)
    dtype = random.choice([torch.float32, torch.bfloat16, torch.float16])
    block = random.choice([32, 64, 100, 4096])
    weight = (torch.randn(rows, columns) * 10.0 ** random.randint(-40, 3)).to(dtype)
    x, grad, bias = torch.randn(inputs, columns).to(dtype), torch.randn(inputs, rows).to(dtype), torch.randn(rows).to(dtype)
    packed, absmax = fourbit.native.quantize(weight, block, random.choice(["nf4", "fp4"]))
    four = (packed, *random.choice([(absmax, None, None), fourbit.reference.quantize_absmax(absmax)]), [rows, columns], block, "nf4")
    tensor = random.random() < 0.3
    block = columns if tensor else min(block, columns)
    kind = random.choice([torch.int8, torch.float8_e4m3fn, torch.float8_e5m2])
    eight = (*eightbit.native.quantize(weight, kind, block, tensor), block)
    three = (*ternary.native.quantize(weight, block, tensor), [rows, columns], block)
    for module, arguments in ((fourbit, four), (eightbit, eight), (ternary, three)):
        module.native.dequantize(*arguments, dtype)
        module.native.linear(x, *arguments, random.choice([bias, None]))
        module.native.linear_rounded(x, *arguments, random.choice([bias, None]))
        module.native.input_grad(grad, *arguments)
    ternary.native.linear_int8(x, *three, bias)
    fourbit.native.linear_int8(x, *four, bias)
print("done")
"""


def build(folder):
    """Compile the library with the address and the undefined-behaviour sanitizer."""
    sanitized = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g"]
    common = ["g++", "-std=c++17", "-O1", "-fPIC", "-fopenmp", "-ffp-contract=off", *sanitized]
    files = {"dispatch.cpp": ["-DBS_HAS_X86"], "isa_portable.cpp": [], **X86}
    jobs = [
        subprocess.Popen([*common, *flags, "-c", SOURCES / name, "-o", folder / f"{name}.o"])
        for name, flags in files.items()
    ]
    assert [job.wait() for job in jobs] == [0] * len(jobs)
    objects = [folder / f"{name}.o" for name in files]
    subprocess.run([*common, "-shared", "-o", folder / library.NAME, *objects], check=True)
    return folder / library.NAME


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++") or os.uname().machine != "x86_64", reason="needs g++ on x86-64")
def test_the_sanitizers_find_nothing(tmp_path):
    """150 rounds of every format and instruction set, odd shapes, several threads."""
    built = build(tmp_path)
    runtime = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",  # Python and torch keep what they allocate
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FUZZ, built],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "done\n"
    assert "runtime error" not in done.stderr, done.stderr[-3000:]
