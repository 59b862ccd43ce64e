"""N runs with dropout, shuffling and workers, each killed with SIGKILL at random moments and resumed, against one that was not.

    python benchmarks/kill_resume.py [--runs 10] [--kills 2]

Counts how many final adapters have the SHA-256 of the uninterrupted run. A killed run is killed again after its resume,
`--kills` times in all, at moments spread evenly over the time that its steps take, checkpoints being written included.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record

from bedstone.testing import save_tiny_model

RUN = """
import json, sys, torch
torch.set_num_threads(1)
import bedstone
print(bedstone.finetune(json.loads(sys.argv[1]), resume="auto").summary.weights_sha256)
"""
WORDS = [
    "amber",
    "birch",
    "cedar",
    "dune",
    "ember",
    "frost",
    "grove",
    "heath",
    "inlet",
    "jade",
    "knoll",
    "lagoon",
    "moss",
    "north",
    "ochre",
    "pine",
]


def configuration(folder: Path, name: str) -> dict[str, object]:
    return {
        "base_model": str(folder / "tiny"),
        "adapter": "lora",
        "lora_dropout": 0.2,
        "datasets": [{"type": "alpaca", "path": str(folder / "rows.jsonl")}],
        "val_set_size": 2,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "dataloader_num_workers": 2,
        "max_steps": 80,
        "save_steps": 2,
        "device": "cpu",
        "learning_rate": 1e-2,
        "output_dir": str(folder / name),
    }


def start(config: dict[str, object]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, json.dumps(config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(config: dict[str, object]) -> str:
    child = start(config)
    out, err = child.communicate()
    if child.returncode:
        raise RuntimeError(err)
    return out.split()[-1]


def kill_once(config: dict[str, object], moment: float) -> dict[str, object]:
    """Let the run train for `moment` seconds after its first new step, then kill it; say where it stood."""
    events = Path(str(config["output_dir"])) / "events.jsonl"
    before = len(steps_in(events))
    child = start(config)
    while child.poll() is None and len(steps_in(events)) == before:
        time.sleep(0.01)
    time.sleep(moment)
    child.kill()
    child.communicate()
    return {"seconds": round(moment, 3), "killed": child.returncode == -9, "step": steps_in(events)[-1]}


def steps_in(events: Path) -> list[int]:
    """The training steps that a run has told of; a line that is being written is not counted."""
    lines = events.read_text().splitlines() if events.exists() else []
    return [json.loads(line)["step"] for line in lines if '"training_step"' in line and line.endswith("}")]


def training_seconds(events: Path) -> float:
    """The time from the first step of a run to its last one."""
    told = [json.loads(line) for line in events.read_text().splitlines()]
    times = [event["time"] for event in told if event["event"] == "training_step"]
    return times[-1] - times[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--kills", type=int, default=2)
    args = parser.parse_args()
    moments = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_tiny_model(folder / "tiny")
        rows = [
            {"instruction": f"Say {word}.", "output": " ".join([word] * (1 + i % 4))} for i, word in enumerate(WORDS)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        expected = finish(configuration(folder, "whole"))
        length = training_seconds(folder / "whole" / "events.jsonl")
        outcomes = []
        for number in range(args.runs):
            config = configuration(folder, f"killed-{number}")
            kills = [kill_once(config, moments.uniform(0, length / args.kills)) for _ in range(args.kills)]
            equal = finish(config) == expected
            outcomes.append({"equal": equal, "kills": kills})
            print(
                f"run {number + 1}/{args.runs}: killed at steps {[k['step'] for k in kills]} -> {'equal' if equal else 'DIFFERENT'}"
            )
    equal = sum(outcome["equal"] for outcome in outcomes)
    print(f"{equal} of {args.runs} final adapters have the SHA-256 of the uninterrupted run ({expected[:16]}...)")
    figures = {"runs": args.runs, "equal": equal, "sha256": expected, "training_s": length, "outcomes": outcomes}
    record.write("kill_resume", figures, packages=("torch", "transformers", "peft"))
    sys.exit(equal != args.runs)


if __name__ == "__main__":
    main()
