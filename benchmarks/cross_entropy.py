"""The output head and its cross-entropy: bedstone, torch's own chunked one, and a product followed by `F.cross_entropy`.

    python benchmarks/cross_entropy.py [--quick]

Forward and backward by turns. Memory is the most that torch's allocator had handed out at a time during both, gradients left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

import record
import torch
from stopwatch import by_turns
from torch._C._profiler import _EventType
from torch.nn import functional

from bedstone.core.memory import free_workspaces
from bedstone.kernels.cross_entropy import linear_cross_entropy

if TYPE_CHECKING:
    from collections.abc import Callable

# Rows, columns, vocabulary, whether the head is trained: a long batch of a small model, a QLoRA step of SmolLM2.
CASES = ((4096, 256, 32_000, True), (2048, 576, 49_152, False))
TARGETS = {"memory": 1 / 15, "time": 1.1}
ROUNDS = 7


def contenders(
    rows: int, columns: int, vocabulary: int, trained: bool
) -> tuple[dict[str, Callable[[], torch.Tensor]], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, columns, generator=generator).requires_grad_()
    weight = (torch.randn(vocabulary, columns, generator=generator) * 0.05).requires_grad_(trained)
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    calls = {
        "bedstone": lambda: linear_cross_entropy(hidden, weight, labels),
        "torch": lambda: functional.cross_entropy(functional.linear(hidden, weight), labels),
    }
    if hasattr(functional, "linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions()
        calls["torch, chunked"] = lambda: functional.linear_cross_entropy(hidden, weight, labels, options=options)
    return calls, [hidden, weight] if trained else [hidden]


def peak(call: Callable[[], torch.Tensor], inputs: list[torch.Tensor]) -> int:
    free_workspaces()  # kept buffers count too
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        grads = torch.autograd.grad(call(), inputs)
    sizes: list[tuple[int, int]] = []

    def collect(events: Any) -> None:
        for event in events:
            if event.tag == _EventType.Allocation:
                sizes.append((event.start_time_ns, event.extra_fields.alloc_size))
            collect(event.children)

    collect(profile.profiler.kineto_results.experimental_event_tree())
    live = most = 0
    for _, size in sorted(sizes):
        live += size
        most = max(most, live)
    return most - sum(grad.nbytes for grad in grads)


def measured(case: tuple[int, int, int, bool], rounds: int) -> dict[str, Any]:
    calls, inputs = contenders(*case)

    def seconds(call: Callable[[], torch.Tensor]) -> float:
        start = time.perf_counter()
        torch.autograd.grad(call(), inputs)
        return time.perf_counter() - start

    memory = {who: peak(call, inputs) for who, call in calls.items()}
    losses = {who: call().item() for who, call in calls.items()}
    samples = by_turns({who: lambda call=call: seconds(call) for who, call in calls.items()}, rounds, what=str(case))
    ratios = [a / b for a, b in zip(samples["bedstone"], samples["torch"], strict=True)]
    found = dict(zip(("rows", "columns", "vocabulary", "head_trained"), case, strict=True))
    return found | {
        "seconds": {who: record.spread(values) for who, values in samples.items()},
        "peak_bytes": memory,
        "losses": losses,
        "time_ratio": record.spread(ratios),
        "memory_ratio": memory["bedstone"] / memory["torch"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, nothing is written")
    quick = parser.parse_args().quick
    cases = [measured(case, 1 if quick else ROUNDS) for case in CASES]
    for case in cases:
        shown = ", ".join(
            f"{who} {case['seconds'][who]['median']:.2f} s and {case['peak_bytes'][who] / 2**20:.0f} MiB"
            for who in case["seconds"]
        )
        print(f"{case['rows']} rows, {case['vocabulary']} words: {shown}")
    met = {
        "memory": cases[0]["memory_ratio"] <= TARGETS["memory"],
        "time": all(case["time_ratio"]["median"] <= TARGETS["time"] for case in cases),
    }
    print("targets: " + ", ".join(f"{name} {'met' if yes else 'MISSED'}" for name, yes in met.items()))
    if not quick:
        record.write("cross_entropy", {"cases": cases, "targets": TARGETS, "met": met})
        sys.exit(not all(met.values()))


if __name__ == "__main__":
    main()
