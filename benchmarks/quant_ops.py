"""Packed weights beside bitsandbytes, torchao and optimum-quanto: time of each operation, and whether the bits are the same.

    python benchmarks/quant_ops.py [--quick]

Each number of threads has a process of its own, bound to cores. In it all contenders of a case take turns; a figure is the
median of the rounds, a ratio (theirs over ours: above 1 ours is faster) is taken within each round. Ends with exit code 1
when a target is missed. `quant_cases.py` says what is compared, `quant_parity.py` what must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import record
from stopwatch import by_turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from quant_cases import Case

PACKAGES = ("torch", "bitsandbytes", "torchao", "optimum-quanto")
CASE_S, LOOP_S, ROUNDS = 0.9, 0.002, (5, 25)


def measured(case: Case) -> dict[str, Any]:
    """Return a case with its figures in milliseconds, as the result file keeps it."""
    calls = {who: _looped(call) for who, call in case.contenders.items()}
    turn_s = sum(call() * loops for call, loops in calls.values()) / 1e3
    rounds = min(max(int(CASE_S / max(turn_s, 1e-6)), ROUNDS[0]), ROUNDS[1])
    samples = by_turns(
        {who: call for who, (call, _) in calls.items()}, rounds, what=f"{case.op} {case.scheme} {case.shape}"
    )
    ours = samples.pop("ours")
    found = {name: getattr(case, name) for name in ("op", "scheme", "shape", "tokens", "dtype", "note")}
    found |= {"unit": "ms", "ours": record.spread(ours), "peers": {}}
    for peer, theirs in samples.items():
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        found["peers"][peer] = {**record.spread(theirs), "ratio": record.spread(ratios)}
    if case.target is not None and "bitsandbytes" in samples:
        found |= {"target": case.target, "met": found["peers"]["bitsandbytes"]["ratio"]["median"] >= case.target}
    return found


def _looped(call: Callable[[], Any]) -> tuple[Callable[[], float], int]:
    """Return what gives the milliseconds of one call, long enough to be timed, and how many calls it makes."""
    call()
    start = time.perf_counter()
    call()
    loops = max(1, round(LOOP_S / max(time.perf_counter() - start, 1e-7)))

    def timed() -> float:
        start = time.perf_counter()
        for _ in range(loops):
            call()
        return (time.perf_counter() - start) / loops * 1e3

    return timed, loops


def child(*, quick: bool) -> None:
    """Measure everything with the threads of this process, one line of JSON a case."""
    import quant_cases
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    for case in quant_cases.cases(quant_cases.installed(), quick=quick):
        print(json.dumps(measured(case)), flush=True)


def run_child(threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Return the cases of a fresh process with this number of threads; each is shown as it comes."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_PROC_BIND": "true", "OMP_PLACES": "cores"}
    words = [sys.executable, "-W", "ignore", str(Path(__file__)), "--child", *["--quick"] * quick]
    found = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                found.append({"threads": threads, **json.loads(line)})
                show(found[-1])
        errors = process.stderr.read() if process.stderr else ""
    if process.returncode:
        raise RuntimeError(f"the process with {threads} threads ended with {process.returncode}:\n{errors}")
    return found


def show(case: dict[str, Any]) -> None:
    size = "x".join(map(str, case["shape"]))
    name = (
        f"{case['threads']}t {case['scheme']:<7} {case['op']:<10} {size:<10} {case['tokens'] or '':>4} {case['dtype']}"
    )
    peers = "  ".join(f"{peer} {found['ratio']['median']:.2f}x" for peer, found in case["peers"].items())
    missed = "" if case.get("met", True) else f"   MISSED {case['target']}x"
    print(f"{name}  {case['ours']['median']:>9.3f} ms  {peers}{missed}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small shapes, one thread, nothing is written")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(quick=options.quick)
        return
    print("ours in ms, and how many times as long the peers take (median of the rounds)")
    cases = [
        case for threads in ((1,) if options.quick else (1, 2)) for case in run_child(threads, quick=options.quick)
    ]
    import quant_parity  # after the children: torch binds this process, and those after it, to a core

    parity, nested = quant_parity.against_bitsandbytes(), quant_parity.nested_scales()
    kept = quant_parity.targets(parity, nested)
    print("\n" + "\n".join(f"{what}: {'yes' if holds else 'NO'}" for what, holds in kept.items()))
    missed = [case for case in cases if not case.get("met", True)]
    print(f"\n{len(missed)} of {sum('met' in case for case in cases)} targets of time missed")
    if not options.quick:
        figures = {"parity": parity, "nested scales": nested, "equal": kept, "cases": cases, "missed": len(missed)}
        record.write("quant_ops", figures, packages=PACKAGES)
    sys.exit(bool(missed) or not all(kept.values()))


if __name__ == "__main__":
    main()
