"""What the core costs a caller, beside `rust-ai-core-bindings` and `accelerate` where they have the same thing.

    python benchmarks/core_overheads.py [--rounds 15]

Import times and commands run in fresh processes, everything else in loops of at least 20 ms in this one, ours and the
peers by turns in every round. A figure is the median of the rounds; a ratio is taken within each round. Figures are for
one thread on a quiet machine. Ends with exit code 1 when a target of ours is missed.
"""

from __future__ import annotations

import os

# Before torch: one thread, kept on one core.
os.environ.update({"OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "true", "OMP_PLACES": "cores"})

import argparse
import sys
from typing import Any

import core_cases
import record
from core_cases import Case
from stopwatch import time_children, time_statements

Samples = dict[str, list[float]]


def missing(peer: str, peers: tuple[str, ...]) -> bool:
    return peer in core_cases.MODULES and peer not in peers


def statements_of(case: Case, peers: tuple[str, ...]) -> list[str]:
    return [case.ours, *(code for peer, code in case.peers if not missing(peer, peers))]


def measure_fresh(peers: tuple[str, ...], rounds: int) -> Samples:
    programs = {name: marks for name, marks in core_cases.PROGRAMS.items() if not missing(name, peers)}
    commands = {name: words for name, words in core_cases.COMMANDS.items() if not missing(name.split()[0], peers)}
    return time_children(programs, commands, rounds)


def measure_statements(peers: tuple[str, ...], rounds: int) -> Samples:
    names = core_cases.names_of_statements(peers)
    codes = [code for case in core_cases.STATEMENTS for code in statements_of(case, peers)]
    return time_statements(codes, names, rounds)


def compared(case: Case, samples: Samples, peers: tuple[str, ...]) -> dict[str, Any]:
    """Return a case with its figures, as the result file keeps it."""
    mine = samples[case.ours]
    found = {"group": case.group, "what": case.what, "unit": case.unit, "ours": case.ours, **record.spread(mine)}
    if case.target is not None:
        found |= {"target": case.target, "met": found["median"] <= case.target}
    found["peers"] = [against(mine, peer, code, samples, peers) for peer, code in case.peers]
    return found | {"note": case.note}


def against(mine: list[float], peer: str, code: str, samples: Samples, peers: tuple[str, ...]) -> dict[str, Any]:
    if missing(peer, peers):
        return {"peer": peer, "statement": code, "missing": f"not installed (pip install {peer})"}
    theirs = samples[code]
    pairs = list(zip(mine, theirs, strict=True))
    return {
        "peer": peer,
        "statement": code,
        **record.spread(theirs),
        "ratio": record.spread([a / b for a, b in pairs]),
        "difference": record.spread([a - b for a, b in pairs]),
    }


def scaled(values: list[float], unit: str) -> tuple[list[float], str]:
    """Return figures in the unit that suits the first of them."""
    for larger in ("µs", "ms") if unit == "ns" else ():
        if abs(values[0]) < 10_000:
            break
        values, unit = [value / 1000 for value in values], larger
    return values, unit


def digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}" if abs(value) >= 0.01 else f"{value:.0e}"


def line(name: str, found: dict[str, Any], unit: str, verdict: str, code: str) -> str:
    (median, low, high), unit_shown = scaled([found[key] for key in ("median", "min", "max")], unit)
    figures = f"{digits(median):>7} {unit_shown} {f'({digits(low)}-{digits(high)})':<16}"
    return f"  {name:<30}{figures}{verdict:<26}{code.replace(f':{chr(10)}', ': ').replace(chr(10), '; ')}"


def show(case: dict[str, Any]) -> None:
    unit = case["unit"]
    verdict = f"target {case['target']} {unit}: {'met' if case['met'] else 'MISSED'}" if "target" in case else ""
    print(line(case["what"], case, unit, verdict, case["ours"]))
    for peer in case["peers"]:
        if "missing" in peer:
            print(f"    {peer['peer']}: {peer['missing']}")
            continue
        (more,), unit_shown = scaled([peer["difference"]["median"]], unit)
        verdict = f"ours {digits(peer['ratio']['median'])} x, {'+' if more > 0 else ''}{digits(more)} {unit_shown}"
        print(line(f"  {peer['peer']}", peer, unit, verdict, peer["statement"]))
    if case["note"]:
        print(f"    ({case['note']})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    peers = core_cases.installed()
    print(
        " ".join(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(("OMP_", "GOMP_")))
    )
    # Fresh processes first: torch binds this one, and its children after it, to a core.
    samples = measure_fresh(peers, rounds) | measure_statements(peers, rounds)
    cases = [compared(case, samples, peers) for case in (*core_cases.FRESH, *core_cases.STATEMENTS)]
    print("median (smallest-largest); ratios below 1 mean that ours is faster")
    for group in dict.fromkeys(case["group"] for case in cases):
        print(f"\n{group}")
        for case in (case for case in cases if case["group"] == group):
            show(case)
    missed = [f"{case['what']} ({case['ours']})" for case in cases if not case.get("met", True)]
    print(f"\ntargets: {'all met' if not missed else 'MISSED: ' + ', '.join(missed)}")
    installed = tuple(peer for peer in core_cases.MODULES if peer in peers)
    record.write("core_overheads", {"rounds": rounds, "cases": cases, "missed": missed}, packages=("torch", *installed))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
