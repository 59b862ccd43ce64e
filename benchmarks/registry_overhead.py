"""What asking the registry costs a call: over the bare torch operation, and over the implementation that it chooses.

    python benchmarks/registry_overhead.py [--rounds 15] [--folder FOLDER]

Loops of at least 20 ms of CPU time, by turns in every round; a cost is the median of the differences within a round. Sums of 8 numbers and a weight of 8 x 64
show the cost, since the work itself is next to nothing; a weight of 4096 x 4096 with one row of x shows what part of a kernel it is. One thread.
Ends with exit code 1 when a target is missed.
"""

from __future__ import annotations

import os

# Before torch: one thread, kept on one core.
os.environ.update({"OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "true", "OMP_PLACES": "cores"})

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import record
import torch
from stopwatch import time_statements

import bedstone as bs
from bedstone import kernels
from bedstone.kernels import fourbit

KERNEL = "linear(x, *large, None)"
CASES = (
    ("an operation of the registry", "add(one, one)", "torch.add(one, one)", 3000),
    ("the same, bound", "bound_add(one, one)", "torch.add(one, one)", 500),
    ("linear_4bit as layers call it", "fourbit.linear_4bit(x, *small, None)", "linear(x, *small, None)", None),
    ("linear_4bit, the operation", "product(x, *small, None)", "linear(x, *small, None)", 3000),
    ("linear_4bit, bound", "bound_product(x, *small, None)", "linear(x, *small, None)", 500),
)
"""What, with the registry, without it, the most nanoseconds between them. A layer's call also asks whether somebody watches (a tracer, a
profiler), which is the price of leaving out torch's dispatcher: it is only held against the kernel."""
HAND_OVER = ("bs.handle_to_tensor(bs.tensor_to_handle(one))", "torch.from_dlpack(one)", 1.5)
PERCENT = 1.0


def subjects() -> dict[str, Any]:
    """Return the objects of the statements."""
    one, x = torch.ones(8), torch.ones(1, 64)
    add = kernels.KernelOp(
        "benchmark_add",
        lambda a, b: kernels.KernelSpec(a.device.type, a.dtype, 0, a.numel(), b.numel(), a.is_contiguous()),
        kernels.KernelImpl("reference", torch.add, lambda a, b: 0),  # noqa: ARG005
    )
    product = kernels.operation("linear_4bit")
    small = _packed(8, 64)
    spec = product.describe(x, *small, None)
    linear = next(each.call for each in product.implementations if each.name == product.choice(spec).name)
    names = {"torch": torch, "bs": bs, "fourbit": fourbit, "one": one, "x": x, "small": small, "product": product}
    names |= {"add": add, "bound_add": add.bind(add.describe(one, one)), "linear": linear}
    return names | {"bound_product": product.bind(spec)}


def _packed(rows: int, columns: int) -> tuple[Any, ...]:
    codes, absmax = fourbit.quantize_4bit(torch.randn(rows, columns), 64, "nf4")
    return codes, absmax, None, None, [rows, columns], 64, "nf4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, default=record.RESULTS, help="where the result file goes")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    names = subjects()
    pairs = [(with_it, bare) for _, with_it, bare, _ in CASES] + [HAND_OVER[:2]]
    samples = time_statements([code for pair in pairs for code in pair], names, options.rounds, clock=time.process_time)
    large = {**names, "x": torch.ones(1, 4096), "large": _packed(4096, 4096)}
    kernel = statistics.median(time_statements([KERNEL], large, options.rounds, clock=time.process_time)[KERNEL])
    cases = [_cost(what, samples[mine], samples[bare], most, kernel) for what, mine, bare, most in CASES]
    cases.append(_hand_over(samples, kernel))
    for case in cases:
        show(case)
    missed = [case["what"] for case in cases if not case["met"]]
    figures = {"rounds": options.rounds, "kernel": "linear_4bit, 1 x 4096 x 4096, nf4", "kernel_ns": kernel}
    record.write(
        "registry_overhead", {**figures, "percent": PERCENT, "cases": cases, "missed": missed}, folder=options.folder
    )
    sys.exit(bool(missed))


def show(case: dict[str, Any]) -> None:
    unit = "ns more" if case["unit"] == "ns" else "times"
    target = "" if case["target"] is None else f", at most {case['target']:g}"
    figures = f"{case['median']:>8.2f} {unit} ({case['min']:.2f}-{case['max']:.2f}){target}"
    verdict = "met" if case["met"] else "MISSED"
    print(f"{case['what']:<32} {figures}; {case['percent_of_kernel']:.2f} % of a kernel: {verdict}")


def _cost(what: str, mine: list[float], bare: list[float], most: float | None, kernel: float) -> dict[str, Any]:
    more = record.spread([a - b for a, b in zip(mine, bare, strict=True)])
    percent = more["median"] / kernel * 100
    found = {"what": what, "unit": "ns", **more, "bare_ns": statistics.median(bare), "target": most}
    met = percent < PERCENT and (most is None or more["median"] <= most)
    return found | {"percent_of_kernel": percent, "met": met}


def _hand_over(samples: dict[str, list[float]], kernel: float) -> dict[str, Any]:
    mine, bare = (samples[code] for code in HAND_OVER[:2])
    ratio = record.spread([a / b for a, b in zip(mine, bare, strict=True)])
    percent = statistics.median(mine) / kernel * 100
    found = {
        "what": "a hand-over without a copy",
        "unit": "times",
        **ratio,
        "bare_ns": statistics.median(bare),
        "target": HAND_OVER[2],
    }
    return found | {"percent_of_kernel": percent, "met": ratio["median"] <= HAND_OVER[2] and percent < PERCENT}


if __name__ == "__main__":
    main()
