"""What `kernels.apply` brings on a CPU: a norm of Llama alone, and greedy decoding with SmolLM2, before and after, by turns.

    python benchmarks/apply.py [--quick]

Both sides live in one process: apply, measure, undo, measure. The norm has 576 columns, as in SmolLM2; its inputs stay in the cache. Decoding
is that of decode.py, NF4 and dense, float32, with the same text out. Applied, a norm makes 2 calls of torch instead of 8; nothing else is replaced.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import decode
import record
import stopwatch
import torch

from bedstone import kernels

COLUMNS = 576
ROWS = (1, 8, 64, 512)
NEW_TOKENS = 24


def norm_times(rounds: int) -> list[dict[str, Any]]:
    """Return the microseconds of a norm's forward, and of forward and backward, its own and the replaced one."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    found: list[dict[str, Any]] = []
    for dtype in (torch.float32, torch.bfloat16):
        own, new = (LlamaRMSNorm(COLUMNS).to(dtype) for _ in range(2))
        kernels.apply(new)
        for rows in ROWS:
            x = torch.randn(1, rows, COLUMNS, dtype=dtype, requires_grad=True)
            names = {"own": own, "new": new, "x": x, "torch": torch, "ones": torch.ones_like(x)}
            for what, code in {
                "forward": "with torch.inference_mode(): {}(x)",
                "forward and backward": "{}(x).backward(ones)",
            }.items():
                times = stopwatch.time_statements([code.format("own"), code.format("new")], names, rounds)
                before, after = times.values()
                ratios = [a / b for a, b in zip(before, after, strict=True)]
                found.append(
                    {
                        "dtype": str(dtype).removeprefix("torch."),
                        "rows": rows,
                        "what": what,
                        "own_us": record.spread([each / 1e3 for each in before]),
                        "new_us": record.spread([each / 1e3 for each in after]),
                        "times_as_fast": record.spread(ratios),
                    }
                )
    return found


def decoding(arm: str, folder: str, rounds: int) -> dict[str, Any]:
    """Return tokens a second before and after, and whether the text is the same."""
    model = decode.load(arm, folder)
    ids = torch.arange(100, 100 + decode.PROMPT_TOKENS)[None]

    def speed() -> tuple[float, list[int]]:
        options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return NEW_TOKENS / (time.perf_counter() - start), out[0].tolist()

    def applied() -> tuple[float, list[int]]:
        with kernels.apply(model):
            return speed()

    found = stopwatch.by_turns({"before": speed, "after": applied}, rounds, what=arm)
    speeds = {name: [each[0] for each in turns] for name, turns in found.items()}
    ratios = [a / b for a, b in zip(speeds["after"], speeds["before"], strict=True)]
    texts = {tuple(each[1]) for turns in found.values() for each in turns}
    return {
        "tokens_per_s": {name: record.spread(values) for name, values in speeds.items()},
        "times_as_fast": record.spread(ratios),
        "same_text": len(texts) == 1,
        "replaced": kernels.apply(model).report().matched,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds, nothing is written")
    quick = parser.parse_args().quick
    from bedstone.train.models import locate

    folder = str(locate(str(decode.MODEL)).location)
    norms = norm_times(2 if quick else 15)
    for each in norms:
        print(
            f"norm, {each['dtype']}, {each['rows']:>3} rows, {each['what']:<20} {each['own_us']['median']:7.1f} -> "
            f"{each['new_us']['median']:7.1f} us, {each['times_as_fast']['median']:.2f} times as fast"
        )
    arms = {arm: decoding(arm, folder, 2 if quick else 12) for arm in ("bedstone nf4", "dense fp32")}
    for arm, each in arms.items():
        speeds = [each["tokens_per_s"][name]["median"] for name in ("before", "after")]
        print(
            f"decode, {arm:<13} {speeds[0]:.1f} -> {speeds[1]:.1f} tokens/s, {each['times_as_fast']['median']:.3f} times as fast"
        )
    slower = [each for each in norms if each["times_as_fast"]["median"] < 0.95]
    same = all(each["same_text"] for each in arms.values())
    if not quick:
        record.write("apply", {"norm": norms, "decode": arms}, packages=("torch", "transformers"))
    sys.exit(bool(slower) or not same)


if __name__ == "__main__":
    main()
