"""Nobody pays for Triton who does not use it, and nobody is left alone who lacks it."""

from __future__ import annotations

import subprocess
import sys

CPU_USE = """
import sys
import torch
import bedstone as bs
from bedstone import kernels
layer = torch.nn.Linear(64, 8)
bs.quantize(layer, "nf4")
layer(torch.randn(2, 64, requires_grad=True)).sum().backward()
from bedstone.kernels.cross_entropy import linear_cross_entropy
linear_cross_entropy(torch.randn(3, 8), torch.randn(9, 8), torch.tensor([1, 2, 3]))
kernels.rms_norm(torch.randn(2, 8), torch.ones(8))
kernels.explain("nf4_linear", device="cuda")
print(sorted({"triton", "bitsandbytes", "liger_kernel"} & set(sys.modules)))
"""
EXPLAINED = """
import sys
sys.modules["triton"] = sys.modules["bitsandbytes"] = None  # as if they were not installed
import torch
from bedstone.kernels import explain
print(explain("nf4_linear", device="cuda", dtype=torch.bfloat16))
"""


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_cpu_never_imports_it():
    assert run(CPU_USE) == "[]\n"


def test_who_lacks_it_reads_the_line_that_installs_it():
    """What would be taken, what is missing, and why the GPU itself is not here."""
    lines = run(EXPLAINED).splitlines()
    assert lines[:7] == [
        "linear_4bit on cuda, bfloat16, 1x4096x4096: reference (exact)",
        "  not bitsandbytes: bitsandbytes is not installed: pip install 'bitsandbytes>=0.50'",
        "  not triton: triton is not installed: pip install 'bedstone[kernels]'",
        "  not native_rounded: it runs on cpu, not on cuda",
        "  not native_int8: it is approximate, and so taken by name only",
        "  not native: it runs on cpu, not on cuda",
        "With what is missing here, bitsandbytes would be taken.",
    ]
