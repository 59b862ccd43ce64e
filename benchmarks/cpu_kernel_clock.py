"""How `cpu_kernels.py` takes its times: contestants by turns, weights that go round, and what stands beside a time.

With one thread a figure is the median of the process CPU time, which other programs hardly touch; with more it is the best wall time,
with the median beside it: where the two are far apart, the machine was not quiet.
"""

from __future__ import annotations

import gc
import resource
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

ROUND_BYTES = 160_000_000
"""What the copies of a weight hold together for few rows of x: five times the largest cache of the machine that the targets are from."""
FEW_INPUTS = 8
SLOW = 2.0  # seconds a call, after which one is enough
QUIET = 1.2  # the most that the median may be above the best
left_out: dict[str, str] = {}
"""What could not take part, and why."""


@dataclass
class Contestant:
    """Who does an operation, and what is known of it besides its time.

    Attributes:
        call: Does it once.
        weight_bytes: Of the weight that it reads; 0 where that says nothing.
        error: Relative, of its result.
        against: What the error is measured against.
        numerics: Of ours, what the implementation states; empty for a peer.
        workspace: Of ours, the bytes that it states it needs.
        extra: Further figures.
    """

    call: Callable[[], Any]
    weight_bytes: float = 0
    error: float | None = None
    against: str = ""
    numerics: str = ""
    workspace: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def in_turn(items: Sequence[Any]) -> Callable[[], Any]:
    """Return what gives the items one after the other, forever."""
    place = 0

    def following() -> Any:
        nonlocal place
        place = (place + 1) % len(items)
        return items[place]

    return following


def copies(nbytes: float, inputs: int) -> int:
    """Return how many copies of a weight go round: for few rows of x so many that no cache holds them."""
    return max(1, -(-ROUND_BYTES // max(int(nbytes), 1))) if inputs <= FEW_INPUTS else 1


def rotated(tensors: tuple[torch.Tensor, ...], inputs: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Return what gives a weight's tensors, each time in other memory where there are few rows of x."""
    many = min(copies(sum(each.nbytes for each in tensors), inputs), 400)
    return in_turn([tensors, *(tuple(each.clone() for each in tensors) for _ in range(many - 1))])


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the norm of the difference over the norm of what is exact."""
    exact = exact.double()
    return ((found.double().reshape(exact.shape) - exact).norm() / exact.norm()).item()


def timed(calls: Mapping[str, Callable[[], Any]], seconds: float, most: int) -> dict[str, list[tuple[float, float]]]:
    """Return wall and CPU seconds of every call, by turns; each gets about so many seconds and at least three turns.

    A slow one takes part in fewer rounds, evenly among them; one that takes seconds in one.
    """
    turns = {name: _turns(call, seconds, most) for name, call in calls.items()}
    rounds = max(turns.values())
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for name in list(calls) if number % 2 else reversed(list(calls)):
                if (number + 1) * turns[name] // rounds > number * turns[name] // rounds:
                    found[name].append(_once(calls[name]))
    finally:
        gc.enable()
    return found


def _turns(call: Callable[[], Any], seconds: float, most: int) -> int:
    took, _ = _once(call)
    if took > SLOW:
        return 1
    took, _ = _once(call)
    return max(3, min(most, int(seconds / max(took, 1e-6))))


def _once(call: Callable[[], Any]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def figures(samples: Sequence[tuple[float, float]], threads: int) -> dict[str, Any]:
    """Return what the result file says of a contestant's time, in milliseconds; `ms` is what is compared."""
    walls, cpus = ([each[i] * 1e3 for each in samples] for i in (0, 1))
    spread = {"best": min(walls), "median": statistics.median(walls), "max": max(walls), "runs": len(walls)}
    spread["cpu_median"] = statistics.median(cpus)
    steady = threads == 1 or spread["median"] <= QUIET * spread["best"]
    return {"ms": spread["cpu_median"] if threads == 1 else spread["best"], **spread, "steady": steady}


def peak_growth(call: Callable[[], Any]) -> int | None:
    """Return the bytes of memory that a call took at most, result included; nothing where the system does not tell (Linux does)."""
    import ctypes
    from pathlib import Path

    reset = Path("/proc/self/clear_refs")
    try:
        reset.write_text("5", encoding="ascii")  # forget the highest
    except OSError:
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    reset.write_text("5", encoding="ascii")
    kept = call()
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    highest = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    del kept
    return max(highest - before, 0)
