"""What part of the peak of their instructions the products of 512 rows reach: NF4 with 16-bit inputs, ternary with bytes. One thread, AVX2.

    python benchmarks/instruction_peak.py [--rounds 9]

The peak is a loop of nothing but the instructions that multiply and add: `vpmaddwd` and `vpaddd` for words, `vpmaddubsw` and `vpaddw` for bytes, eight of
each that do not wait for one another. Loop and product take turns; a share is the median of those within a round. Ends with exit code 1 when one
is below 75 %, which is hoped for.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch: one thread, kept on one core.
os.environ.update({"OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "true", "OMP_PLACES": "cores"})

import record
import torch
from stopwatch import by_turns

from bedstone.kernels import fourbit, native, ternary

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, SIZE, STRETCH = 512, 4096, 0.75
LOOPS = 4_000_000
SOURCE = r"""
#include <immintrin.h>
#define LOOP(name, multiply, add) \
  extern "C" void name(long rounds) { \
    __m256i x = _mm256_set1_epi8(1), s[8] = {}, p; \
    for (long r = 0; r < rounds; r++) \
      _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++) { \
        asm volatile(multiply " %1, %1, %0" : "=x"(p) : "x"(x)); \
        asm volatile(add " %1, %0, %0" : "+x"(s[i]) : "x"(p)); \
      } \
  }
LOOP(words, "vpmaddwd", "vpaddd")
LOOP(bytes, "vpmaddubsw", "vpaddw")
"""


def loops(folder: str) -> ctypes.CDLL:
    """Compile and load the two loops."""
    source, library = Path(folder) / "peak.cpp", Path(folder) / "peak.so"
    source.write_text(SOURCE)
    subprocess.run(["g++", "-O2", "-mavx2", "-shared", "-fPIC", "-o", library, source], check=True)
    found = ctypes.CDLL(str(library))
    found.words.argtypes = found.bytes.argtypes = [ctypes.c_long]
    return found


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def shares(peak: Callable[[], object], at_once: int, product: Callable[[], object], rounds: int) -> dict[str, float]:
    """Return the part of the peak, by turns; `at_once` products an instruction."""
    found = by_turns({"peak": lambda: seconds(peak), "product": lambda: seconds(product)}, rounds, what="products")
    ratio = ROWS * SIZE * SIZE / (8 * LOOPS * at_once)
    return record.spread([ratio * best / mine for best, mine in zip(found["peak"], found["product"], strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if native.status().isa != "avx2":
        sys.exit(f"This measures AVX2; the CPU library uses {native.status().isa or 'nothing here'}.")
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(rows, SIZE, generator=generator) for rows in (SIZE, ROWS))
    four = (*fourbit.reference.quantize(weight, 64, "nf4"), None, None, [SIZE, SIZE], 64, "nf4")
    three = (*ternary.reference.quantize(weight, SIZE, True), [SIZE, SIZE], SIZE)
    with tempfile.TemporaryDirectory() as folder:
        loop = loops(folder)
        cases = {
            "nf4 native_rounded": shares(
                lambda: loop.words(LOOPS), 16, lambda: fourbit.native.linear_rounded(x, *four, None), options.rounds
            ),
            "ternary native_int8": shares(
                lambda: loop.bytes(LOOPS), 32, lambda: ternary.native.linear_int8(x, *three, None), options.rounds
            ),
        }
    for name, share in cases.items():
        print(f"{name}: {share['median']:.1%} of the peak ({share['min']:.1%} to {share['max']:.1%})")
    met = {name: share["median"] >= STRETCH for name, share in cases.items()}
    shape = [ROWS, SIZE, SIZE]
    record.write("instruction_peak", {"shape": shape, "cases": cases, "stretch": STRETCH, "met": met})
    sys.exit(not all(met.values()))


if __name__ == "__main__":
    main()
