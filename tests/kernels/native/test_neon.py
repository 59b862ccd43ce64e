"""The NEON code, run by an emulator, gives the bits of the portable code, which gives those of plain torch."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bedstone.kernels.native import library

SOURCES = Path(library.__file__).parent / "cpp"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(COMPILER) or not shutil.which(EMULATOR), reason=f"needs {COMPILER} and {EMULATOR}")
def test_neon_gives_what_the_portable_code_gives(tmp_path):
    """Thousands of weights of odd sizes, every function, every dtype."""
    driver = Path(__file__).parent / "variants.cpp"
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-fopenmp", "-static", "-w", f"-I{SOURCES}"]
    sources = [SOURCES / "isa_portable.cpp", SOURCES / "isa_neon.cpp", driver]
    subprocess.run([COMPILER, *flags, "-o", tmp_path / "variants", *sources], check=True, stderr=subprocess.DEVNULL)
    done = subprocess.run([EMULATOR, tmp_path / "variants"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert int(re.fullmatch(r"(\d+) comparisons\n", done.stdout)[1]) > 10_000
