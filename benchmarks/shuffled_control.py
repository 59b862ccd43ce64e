"""Does the demo learn answers, or only their style? The same run twice: with the right answers, and with shuffled ones.

    python benchmarks/shuffled_control.py [--config examples/smollm2-qlora.yaml]

The control pairs each question with another row's answer, so only style can be learnt; both are measured on the same
held-out rows with their right answers. Target: the real run ends at least 0.15 nats a token below the control, and its
own loss falls by at least a fifth.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

# Before torch: waiting threads sleep, so that a shared machine does not slow the run tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import record

import bedstone as bs
from bedstone.repro import SeedTree
from bedstone.train.config import load_config
from bedstone.train.data import format_of

TARGET_NATS, TARGET_FALL = 0.15, 0.2


def rows_of(config_dataset: object) -> list[dict[str, object]]:
    return [row.fields for row in format_of(config_dataset).rows(config_dataset)]


def write_chat(path: Path, rows: list[dict[str, object]], answers: list[object]) -> None:
    lines = [
        json.dumps(
            {"messages": [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": answer}]}
        )
        for row, answer in zip(rows, answers, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="examples/smollm2-qlora.yaml")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = load_config(args.config, [f"output_dir={folder}/real", "sample_prompts=[]"])
        rows = rows_of(config.datasets[0])
        answers = [row["answer"] for row in rows]
        shuffled = list(answers)
        SeedTree(1).random("shuffled answers").shuffle(shuffled)
        ends = {}
        for kind, given in {"real": answers, "shuffled": shuffled}.items():
            write_chat(folder / f"{kind}.jsonl", rows, given)
            data = [{"type": "chat_template", "path": str(folder / f"{kind}.jsonl")}]
            values = config.model_dump(exclude_unset=True) | {"datasets": data, "output_dir": f"{folder}/{kind}"}
            print(f"{kind}: training ...", flush=True)
            ends[kind] = bs.finetune(values).summary
    real, control = ends["real"], ends["shuffled"]
    gap, fall = control.loss_after - real.loss_after, 1 - real.loss_after / real.loss_before
    print(
        f"held-out loss {real.loss_before:.3f} -> {real.loss_after:.3f} ({-fall:.1%}); with shuffled answers {control.loss_after:.3f}"
    )
    print(f"the answers themselves are worth {gap:.3f} nats a token (target {TARGET_NATS})")
    met = gap >= TARGET_NATS and fall >= TARGET_FALL
    figures = {
        "steps": real.steps,
        "loss_before": real.loss_before,
        "loss_after": real.loss_after,
        "loss_after_shuffled": control.loss_after,
        "gap_nats": gap,
        "fall": fall,
        "target_gap_nats": TARGET_NATS,
        "target_fall": TARGET_FALL,
        "met": met,
        "seconds": {"real": real.seconds, "shuffled": control.seconds},
    }
    record.write("shuffled_control", figures, packages=("torch", "transformers", "peft"))
    sys.exit(not met)


if __name__ == "__main__":
    main()
