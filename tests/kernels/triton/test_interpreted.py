"""The Triton kernels, forward and backward, in Triton's interpreter on CPU tensors: what they compute, not how fast.

The interpreter is switched on by a variable before Triton is imported, for a whole process; so `check_interpreted.py` runs in one of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.mark.parametrize("what", ["weights", "losses"])
def test_kernels_compute_what_plain_torch_computes(what):
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    words = ["-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-k", what, "--durations=5"]
    path = str(Path(__file__).with_name("check_interpreted.py"))
    # Infinities are multiplied on purpose, and numpy, which interprets, warns of them.
    filters = ["-W", "ignore::RuntimeWarning"]
    done = subprocess.run(
        [sys.executable, *words, *filters, path], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert " failed" not in done.stdout
