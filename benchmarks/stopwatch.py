"""Times statements by turns, so that a machine that becomes slower becomes slower for all of them.

A round measures every contender once; the next round goes through them backwards, so that neighbours swap who is first.
The first round warms up and is thrown away. What is compared is compared within a round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import timeit
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")
LOOP_S = 0.02
# Children start as a user's program does: with bytecode kept as pip leaves it, and on any core.
_NOT_A_USERS = {"PYTHONDONTWRITEBYTECODE", "OMP_PROC_BIND", "OMP_PLACES"}


@dataclass(frozen=True)
class Mark:
    """A line of a child's program; `label` times it, from the end of line number `since` (0: the start) to its own end."""

    line: str
    label: str = ""
    since: int = 0


def by_turns(measures: Mapping[str, Callable[[], T]], rounds: int, *, what: str) -> dict[str, list[T]]:
    """Call every measure once a round and return its results of all rounds but the first, which warms up."""
    found: dict[str, list[T]] = {name: [] for name in measures}
    for number in range(rounds + 1):
        if sys.stderr.isatty():
            print(f"\r{what}: round {number}/{rounds} ", end="\n" * (number == rounds), file=sys.stderr, flush=True)
        for name in list(measures) if number % 2 else reversed(measures):
            found[name].append(measures[name]())
    return {name: values[1:] for name, values in found.items()}


def time_statements(
    statements: Iterable[str],
    names: dict[str, Any],
    rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return nanoseconds a call of each statement, looped for at least 20 ms with the garbage collector off."""
    looped = {code: _looped(code, names, clock) for code in dict.fromkeys(statements)}
    return by_turns(looped, rounds, what="statements")


def time_children(
    programs: Mapping[str, Sequence[Mark]], commands: Mapping[str, Sequence[str]], rounds: int
) -> dict[str, list[float]]:
    """Return milliseconds of each label of each program, and of each whole command, in fresh processes."""
    measures: dict[str, Callable[[], dict[str, float]]] = {}
    measures |= {name: _program(marks) for name, marks in programs.items()}
    measures |= {name: _command(name, words) for name, words in commands.items()}
    results = by_turns(measures, rounds, what="fresh processes")
    return {label: [one[label] for one in found] for found in results.values() for label in found[0]}


def _looped(code: str, names: dict[str, Any], clock: Callable[[], float]) -> Callable[[], float]:
    timer = timeit.Timer(code, timer=clock, globals=names)  # timeit turns the garbage collector off
    timer.timeit(1)  # what the first call imports or caches is no part of a loop
    loops = 1
    while (took := timer.timeit(loops)) < LOOP_S:
        loops = max(loops + 1, min(10 * loops, int(1.3 * loops * LOOP_S / max(took, 1e-9))))
    return lambda: timer.timeit(loops) / loops * 1e9


def _program(marks: Sequence[Mark]) -> Callable[[], dict[str, float]]:
    clock = "_t.append(_clock())"
    lines = ["import json as _json", "from time import perf_counter as _clock", f"_t = []; {clock}"]
    lines += [line for mark in marks for line in (mark.line, clock)]
    code = "\n".join([*lines, "print(_json.dumps(_t))"])

    def measure() -> dict[str, float]:
        times = json.loads(_run([sys.executable, "-W", "ignore", "-c", code]).splitlines()[-1])
        return {m.label: (times[i] - times[m.since]) * 1e3 for i, m in enumerate(marks, 1) if m.label}

    return measure


def _command(name: str, words: Sequence[str]) -> Callable[[], dict[str, float]]:
    def measure() -> dict[str, float]:
        start = time.perf_counter()
        _run(words)
        return {name: (time.perf_counter() - start) * 1e3}

    return measure


def _run(words: Sequence[str]) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_A_USERS}
    child = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if child.returncode:
        raise RuntimeError(f"{words} ended with {child.returncode}:\n{child.stderr}")
    return child.stdout
