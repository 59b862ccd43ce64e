"""How long each implementation of an operation takes here, by turns, so that a busy moment hits all of them."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import DeviceNotAvailableError
from bedstone.kernels.native import status
from bedstone.kernels.samples import sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from bedstone.kernels.registry import KernelOp, KernelSpec

_ROUNDS, _SECONDS = 30, 3.0


def measure(op: KernelOp, spec: KernelSpec) -> dict[str, Any]:
    """Return the times of every implementation that can take a specification, and why the others cannot.

    Weights of one call are read again by the next, so a weight that fits into the cache is measured in the cache.

    Args:
        op: The operation.
        spec: What to call it with; the device must be here.

    Returns:
        Plain values for JSON: what was measured and with what, `implementations` by name (`median_ms`, `fastest_ms`, `rounds`,
        `weight_gb_per_s`), `rejected` by name.

    Raises:
        DeviceNotAvailableError: The device is not here.
    """
    try:
        arguments = sample(op.name, spec)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that it does not have
        message = f"torch cannot use {spec.device} here: {str(error).splitlines()[0]}."
        remedy = "`bedstone doctor` says what this machine has."
        raise DeviceNotAvailableError(message, device=spec.device, reason="TORCH_REFUSES", remedy=remedy) from error
    reasons = {each.name: each.unfit(spec) for each in op.implementations}
    fit = {each.name: each.call for each in op.implementations if not reasons[each.name]}
    times = _by_turns({name: lambda call=call: call(*arguments) for name, call in fit.items()}, spec.device)
    weight = sum(a.nbytes for a in arguments[1 if spec.inputs else 0 :] if isinstance(a, torch.Tensor))
    return {
        "op": op.name,
        "spec": {**spec._asdict(), "dtype": str(spec.dtype).removeprefix("torch.")},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "native": status().isa,
        "implementations": {
            name: {
                "median_ms": statistics.median(found) * 1e3,
                "fastest_ms": min(found) * 1e3,
                "rounds": len(found),
                "weight_gb_per_s": weight / statistics.median(found) / 1e9,
            }
            for name, found in times.items()
        },
        "rejected": {name: reason for name, reason in reasons.items() if reason},
    }


def _by_turns(calls: dict[str, Callable[[], Any]], device: str) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.perf_counter() + _SECONDS
    for number in range(_ROUNDS):
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
    if device == "cuda":
        torch.cuda.synchronize()
