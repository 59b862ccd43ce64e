"""One process of `cpu_kernels.py`: a shape, a number of threads, everybody by turns; each finding is a line of JSON.

    OMP_NUM_THREADS=1 python benchmarks/cpu_kernel_child.py ROWS COLUMNS LIBRARY SECONDS

The library is that of ggml, empty for none; about so many seconds each contestant of a case is measured.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from cpu_kernel_cases import Bench, identical_bits
from cpu_kernel_clock import figures, left_out, timed

if TYPE_CHECKING:
    from cpu_kernel_cases import Case

MOST_TURNS = 300


def measure(shape: tuple[int, int], library: str, seconds: float) -> None:
    """Measure everything with the threads of this process."""
    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    bench = Bench(*shape, Path(library) if library else None)
    read = bench.ggml.read_gb_per_s(2 * seconds) if bench.ggml else None
    about = {"shape": shape, "threads": threads, "read_gb_per_s": read, "identical_bits": identical_bits(bench)}
    say({"machine": about | {"ggml": bench.ggml.version() if bench.ggml else "", "huge_pages": huge_pages()}})
    for case in bench.cases():
        say({"case": {"threads": threads, "shape": shape, **measured(case, seconds, threads)}})
    say({"end": {"left_out": left_out, "load": os.getloadavg()}})


def measured(case: Case, seconds: float, threads: int) -> dict[str, Any]:
    """Return a case with its figures, as the result file keeps it."""
    samples = timed({name: each.call for name, each in case.contestants.items()}, seconds, MOST_TURNS)
    found = {name: getattr(case, name) for name in ("op", "scheme", "inputs", "dtype")}
    said = ("weight_bytes", "error", "against", "numerics", "workspace")
    found["contestants"] = {
        name: figures(samples[name], threads) | {key: getattr(each, key) for key in said} | each.extra
        for name, each in case.contestants.items()
    }
    return found


def huge_pages() -> str:
    """Return what Linux does about huge pages, which decides what a fresh output costs: `always`, `madvise` or `never`."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.read_text(encoding="ascii").partition("[")[2].partition("]")[0] if setting.is_file() else "unknown"


def say(finding: dict[str, Any]) -> None:
    print(json.dumps(finding), flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # peers warn about GPU libraries
    warnings.simplefilter("ignore")  # and torch about what it means to drop: fbgemm's quantized tensors
    measure((int(sys.argv[1]), int(sys.argv[2])), sys.argv[3], float(sys.argv[4]))
