"""Query, key, value and the MLP of a Llama with LoRA: bedstone's functions and peft's layers, memory and time of forward and backward.

    python benchmarks/lora_memory.py [--quick]
    python benchmarks/lora_memory.py --write      # the table of docs/explanation/kernels.md

Memory is what torch's allocator handed out: the most at a time during forward and backward, and what is there between the two, results of
the forward pass included; gradients are left out. Both sides use the same weights and adapters, without dropout.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import record
import torch
from peft import LoraConfig, get_peft_model
from stopwatch import by_turns
from torch._C._profiler import _EventType
from transformers import LlamaConfig, LlamaForCausalLM

import bedstone as bs
from bedstone.core.memory import free_workspaces
from bedstone.kernels.lora import LoraProjection, lora_linear, lora_mlp

if TYPE_CHECKING:
    from collections.abc import Callable

# Rows, hidden size, inner size, heads, key heads, dtype, scheme. Sizes of SmolLM2-135M and of Llama 3.2 1B; adapters are float32 as peft makes them.
CASES = (
    (2048, 576, 1536, 9, 3, "float32", None),
    (2048, 576, 1536, 9, 3, "float32", "nf4"),
    (512, 2048, 8192, 32, 8, "float32", "nf4"),
    (512, 2048, 8192, 32, 8, "bfloat16", "nf4"),
)
PAGE = Path(__file__).parent.parent / "docs/explanation/kernels.md"
HEAD, TAIL = "<!-- table: written by benchmarks/lora_memory.py -->", "<!-- end of table -->"
QKV, MLP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")
ROUNDS = 7


def layer_of(case: tuple[Any, ...]) -> torch.nn.Module:
    _, hidden, inner, heads, key_heads, dtype, scheme = case
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        num_hidden_layers=1,
        vocab_size=32,
    )
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    if scheme:
        bs.quantize(model, scheme)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=[*QKV, *MLP]))
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide a difference
            torch.nn.init.normal_(weight, std=0.02)
    return model.base_model.model.model.layers[0]


def of_peft(layer: Any) -> LoraProjection:
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return LoraProjection(layer.base_layer.weight, a, b, layer.scaling["default"])


def contenders(case: tuple[Any, ...]) -> tuple[dict[str, Callable[[], torch.Tensor]], list[torch.Tensor]]:
    torch.manual_seed(0)
    layer = layer_of(case)
    heads, mlp = [getattr(layer.self_attn, name) for name in QKV], [getattr(layer.mlp, name) for name in MLP]
    x = torch.randn(case[0], case[1], dtype=getattr(torch, case[5])).requires_grad_()

    def ours() -> torch.Tensor:
        return torch.cat([*lora_linear(x, *map(of_peft, heads)), lora_mlp(x, *map(of_peft, mlp))], 1)

    def theirs() -> torch.Tensor:
        return torch.cat([*(each(x) for each in heads), layer.mlp(x)], 1)

    trained = [weight for name, weight in layer.named_parameters() if "lora_" in name]
    return {"bedstone": ours, "peft": theirs}, [x, *trained]


def memory(call: Callable[[], torch.Tensor], inputs: list[torch.Tensor]) -> dict[str, int]:
    """Return the most bytes at a time, and those that are there after the forward pass."""
    free_workspaces()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
        with torch.profiler.record_function("between"):
            pass
        grads = torch.autograd.grad(result, inputs, torch.ones_like(result))
    sizes: list[tuple[int, int]] = []
    between = 0

    def collect(events: Any) -> None:
        nonlocal between
        for event in events:
            if event.name == "between":
                between = event.start_time_ns
            if event.tag == _EventType.Allocation:
                sizes.append((event.start_time_ns, event.extra_fields.alloc_size))
            collect(event.children)

    collect(profile.profiler.kineto_results.experimental_event_tree())
    live = most = 0
    for _, size in sorted(sizes):
        live += size
        most = max(most, live)
    kept = sum(size for start, size in sizes if start < between)
    return {"peak_bytes": most - sum(grad.nbytes for grad in grads), "kept_bytes": kept}


def measured(case: tuple[Any, ...], rounds: int) -> dict[str, Any]:
    calls, inputs = contenders(case)

    def seconds(call: Callable[[], torch.Tensor]) -> float:
        start = time.perf_counter()
        result = call()
        torch.autograd.grad(result, inputs, torch.ones_like(result))
        return time.perf_counter() - start

    taken = {who: memory(call, inputs) for who, call in calls.items()}
    ours, theirs = (call().detach() for call in calls.values())
    samples = by_turns({who: lambda call=call: seconds(call) for who, call in calls.items()}, rounds, what=str(case))
    ratios = [a / b for a, b in zip(samples["bedstone"], samples["peft"], strict=True)]
    names = ("rows", "hidden", "inner", "heads", "key_heads", "dtype", "scheme")
    return dict(zip(names, case, strict=True)) | {
        "seconds": {who: record.spread(values) for who, values in samples.items()},
        "memory": taken,
        "difference": float((ours - theirs).abs().max() / theirs.abs().max()),
        "time_ratio": record.spread(ratios),
        "peak_ratio": taken["bedstone"]["peak_bytes"] / taken["peft"]["peak_bytes"],
        "kept_ratio": taken["bedstone"]["kept_bytes"] / taken["peft"]["kept_bytes"],
    }


def table(result: dict[str, Any]) -> str:
    """Return the figures as the page has them."""
    lines = [
        "| tokens | columns | weights | inputs | kept | peft | peak | peft | times the time of peft |",
        "|---" * 9 + "|",
    ]
    for case in result["figures"]["cases"]:
        sizes = [f"{case['memory'][who][what] / 2**20:.0f} MiB" for what in ("kept_bytes", "peak_bytes") for who in ("bedstone", "peft")]  # fmt: skip
        columns = [case["rows"], f"{case['hidden']}, {case['inner']} inside", case["scheme"] or "dense", case["dtype"]]
        lines.append("| " + " | ".join(map(str, [*columns, *sizes, f"{case['time_ratio']['median']:.2f}"])) + " |")
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("torch", "transformers", "peft"))
    where = f"{result['cpu'].replace(' Processor', '')}, {result['cores']} cores, load {result['load'][0]}, {versions}."
    return "\n".join([*lines, "", where])


def recorded() -> dict[str, Any]:
    return json.loads((record.RESULTS / "lora_memory.json").read_text())


def write_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    made = f"{HEAD}\n\n{table(recorded())}\n\n{TAIL}"
    PAGE.write_text(re.sub(f"{HEAD}.*?{TAIL}", lambda _: made, text, flags=re.DOTALL), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, nothing is written")
    parser.add_argument("--write", action="store_true", help="write the table from the result file, measure nothing")
    parser.add_argument("--table", action="store_true", help="print that table")
    asked = parser.parse_args()
    if asked.table:
        print(table(recorded()))
        return
    if asked.write:
        write_page()
        return
    quick = asked.quick
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    cases = [measured(case, 1 if quick else ROUNDS) for case in CASES]
    for case in cases:
        shown = ", ".join(
            f"{who} {case['seconds'][who]['median']:.2f} s, kept {case['memory'][who]['kept_bytes'] / 2**20:.0f} MiB, "
            f"peak {case['memory'][who]['peak_bytes'] / 2**20:.0f} MiB"
            for who in case["seconds"]
        )
        print(f"{case['rows']} x {case['hidden']} x {case['inner']}, {case['dtype']}, {case['scheme']}: {shown}")
    if not quick:
        record.write("lora_memory", {"cases": cases}, packages=("torch", "transformers", "peft"))


if __name__ == "__main__":
    main()
