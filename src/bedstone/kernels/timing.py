"""Calls measured by turns, so that a busy moment hits all of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def by_turns(
    calls: dict[str, Callable[[], Any]], device: str, *, rounds: int = 30, seconds: float = 3.0
) -> dict[str, list[float]]:
    """Return the seconds of every call, by name; each is called once before.

    Args:
        calls: What to measure.
        device: Where it runs; a device that works behind the program's back is waited for.
        rounds: How often each is measured.
        seconds: After which no new round begins, three rounds excepted.

    >>> sorted(by_turns({"a": lambda: None, "b": lambda: None}, "cpu", rounds=3))
    ['a', 'b']
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.perf_counter() + seconds
    for number in range(rounds):
        if number >= 3 and time.perf_counter() > end:  # noqa: PLR2004 - a median wants three
            break
        for name, call in calls.items():
            _wait(device)
            start = time.perf_counter()
            call()
            _wait(device)
            times[name].append(time.perf_counter() - start)
    return times


def _wait(device: str) -> None:
    if device in ("cuda", "xpu", "mps"):
        getattr(torch, device).synchronize()
