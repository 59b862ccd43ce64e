"""What it costs to hand a tensor to another framework, beside the bare call that does it without looking.

    python benchmarks/handover.py [--rounds 15]
    python benchmarks/handover.py --table    # print the table of the how-to page from the result file
    python benchmarks/handover.py --write    # put it between the markers of the page

`interop.to` checks that the memory shows the numbers and that the framework takes it as it is; the bare calls do not. By
turns in loops of at least 20 ms, a tensor of 64 MiB, one thread. Two targets: at most 1.5 times the slower of
`torch.from_dlpack` and the fastest call of the framework itself; and, for `numpy`, at most 1% of a product of one row with a
weight of 4096x4096, in float32 and in NF4. Ends with exit code 1 when one is missed.
"""

from __future__ import annotations

import os

# Before torch: one thread, kept on one core.
os.environ.update({"OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "true", "OMP_PLACES": "cores"})

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import record
from stopwatch import time_statements

PACKAGES = ("torch", "numpy", "jax", "numba", "warp-lang", "apache-tvm-ffi")
REFERENCE = "torch.from_dlpack(tensor)"
BARE = {
    "numpy": ("tensor.numpy()", "np.from_dlpack(tensor)"),
    "numba": ("tensor.numpy()",),
    "tvm_ffi": ("tvm_ffi.from_dlpack(tensor)",),
    "warp": ("warp.from_torch(tensor)", "warp.from_dlpack(tensor)"),
    "jax": ("jax.dlpack.from_dlpack(tensor)",),
}
KERNELS = {"float32": "torch.mv(weight, token)", "NF4": "torch.nn.functional.linear(row, packed)"}
RATIO, SHARE = 1.5, 0.01
PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "share-memory-with-a-kernel-framework.md"
BEGIN, END = "<!-- table: written by benchmarks/handover.py -->", "<!-- end of table -->"


def names() -> dict[str, Any]:
    """Return what the statements use; imports the frameworks and proves that they share the memory."""
    import jax
    import numpy as np
    import torch
    import tvm_ffi
    import warp

    import bedstone as bs
    from bedstone import interop

    warp.config.log_level = warp.LOG_WARNING
    warp.init()
    tensor, weight = torch.ones(2**24), torch.randn(4096, 4096)
    for framework in BARE:
        interop.to(tensor, framework, strict=True)
    subjects = {"tensor": tensor, "weight": weight, "token": weight[0].clone(), "row": weight[:1].clone()}
    subjects["packed"] = bs.quantize(weight, "nf4")
    return subjects | {"np": np, "torch": torch, "interop": interop, "jax": jax, "warp": warp, "tvm_ffi": tvm_ffi}


def measure(rounds: int) -> dict[str, Any]:
    """Return the figures of the result file."""
    statements = [
        *map(statement, BARE),
        *(each for calls in BARE.values() for each in calls),
        REFERENCE,
        *KERNELS.values(),
    ]
    samples = time_statements(statements, names(), rounds)
    cases = [compared(framework, samples) for framework in BARE]
    missed = [case["framework"] for case in cases if not case["met"]]
    beside = {each: record.spread(samples[each]) for each in (REFERENCE, *KERNELS.values())}
    return {
        "rounds": rounds,
        "targets": {"ratio": RATIO, "share": SHARE},
        "cases": cases,
        "beside": beside,
        "missed": missed,
    }


def statement(framework: str) -> str:
    return f"interop.to(tensor, {framework!r})"


def compared(framework: str, samples: dict[str, list[float]]) -> dict[str, Any]:
    """Return what the result file keeps of a framework; ratios are taken within each round."""
    mine = samples[statement(framework)]

    def over(other: str) -> dict[str, float]:
        return record.spread([a / b for a, b in zip(mine, samples[other], strict=True)])

    shares = {name: over(code) for name, code in KERNELS.items()}
    bare = {code: record.spread(samples[code]) | {"ratio": over(code)} for code in BARE[framework]}
    ratios = [over(REFERENCE)["median"], max(each["ratio"]["median"] for each in bare.values())]
    within_share = framework != "numpy" or all(share["median"] <= SHARE for share in shares.values())
    return {
        "framework": framework,
        **record.spread(mine),
        "over_torch_from_dlpack": over(REFERENCE),
        "bare": bare,
        "share_of_product": shares,
        "met": min(ratios) <= RATIO and within_share,
    }


def table(result: dict[str, Any]) -> str:
    """Return the section of the page."""
    lines = [
        "| to | takes | of `torch.from_dlpack` | beside it, bare | of a product 4096x4096, float32 and NF4 |",
        "|---" * 5 + "|",
    ]
    for case in result["figures"]["cases"]:
        bare = ", ".join(f"`{code}` {value['median']:,.0f} ns" for code, value in case["bare"].items())
        shares = ", ".join(f"{share['median']:.2%}" for share in case["share_of_product"].values())
        ratio = case["over_torch_from_dlpack"]["median"]
        lines.append(f"| `{case['framework']}` | {case['median']:,.0f} ns | {ratio:.2f} | {bare} | {shares} |")
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in PACKAGES)
    circumstances = f"Medians on one thread, {result['cpu']}, load {result['load'][0]}, {versions}."
    return "\n".join([*lines, "", circumstances])


def show(figures: dict[str, Any]) -> None:
    for case in figures["cases"]:
        shares = ", ".join(f"{share['median']:.2%}" for share in case["share_of_product"].values())
        verdict = "met" if case["met"] else "MISSED"
        ratio = case["over_torch_from_dlpack"]["median"]
        print(
            f"{case['framework']:<8} {case['median']:>8,.0f} ns, {ratio:.2f} x torch.from_dlpack, {shares} of a product: {verdict}"
        )
        for code, each in case["bare"].items():
            print(f"  {code:<32} {each['median']:>8,.0f} ns, ours {each['ratio']['median']:.2f} x")


def quote(*, write: bool) -> None:
    section = table(json.loads((record.RESULTS / "handover.json").read_text(encoding="utf-8")))
    if not write:
        print(section)
        return
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{section}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--table", action="store_true", help="measure nothing, print the table of the last result")
    parser.add_argument("--write", action="store_true", help="measure nothing, change the page")
    arguments = parser.parse_args()
    if arguments.table or arguments.write:
        quote(write=arguments.write)
        return
    figures = measure(arguments.rounds)
    show(figures)
    record.write("handover", figures, packages=PACKAGES)
    sys.exit(bool(figures["missed"]))


if __name__ == "__main__":
    main()
