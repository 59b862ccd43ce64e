"""Run folders as `bedstone train` leaves them, for the tests of the report: whole, interrupted, killed, hostile."""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BEGAN = 1_770_000_000.0
STEPS = 36
CONFIG = """\
base_model: models/smollm2-135m  # line 2
adapter: lora  # line 3
learning_rate: 0.0004  # --set
seed: 42  # default
"""
MANIFEST = {
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "peft": "0.21.2"},
    "environment": {"OMP_NUM_THREADS": "2"},
    "devices": [{"name": "cpu", "threads": 2}],
    "seeds": [42],
    "git": None,
}


def event(name: str, at: float, **fields: Any) -> dict[str, Any]:
    """Return one event, `at` seconds after the run began."""
    return {"event": name, "time": BEGAN + at, **fields}


def setup(at: float, resumed_from: int | None = None) -> list[dict[str, Any]]:
    """Return the events of a start, in the order in which they happen."""
    resumed = {} if resumed_from is None else {"resumed_from_step": resumed_from}
    reason = "No GPU: torch was built without CUDA."
    return [
        event("device_selected", at, device="cpu", requested="auto", source="config", reason=reason),
        event(
            "data_prepared",
            at + 1,
            split="train",
            rows=812,
            tokens=91_234,
            trained_tokens=40_321,
            truncated=3,
            dropped=1,
        ),
        event(
            "data_prepared", at + 1, split="test", rows=90, tokens=9_876, trained_tokens=4_321, truncated=0, dropped=0
        ),
        event(
            "run_started",
            at + 2,
            run="demo",
            base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
            device="cpu",
            steps=STEPS,
            epochs=1,
            parameters=134_515_008,
            trainable_parameters=460_800,
            **resumed,
        ),
    ]


def steps(first: int, last: int, at: float) -> list[dict[str, Any]]:
    """Return training steps whose loss falls from about 3.8 to 2.7, five seconds each."""
    return [
        event(
            "training_step",
            at + 5 * (step - first + 1),
            step=step,
            total=STEPS,
            loss=2.6 + 1.2 * math.exp(-step / 10) + random.Random(step).uniform(-0.15, 0.15),
            lr=4e-4 * min(step / 4, 0.5 + 0.5 * math.cos(math.pi * max(step - 4, 0) / 32)),
            grad_norm=1.5 - step / 60,
            tokens=1024 + step,
            seconds=5.0,
            tokens_per_s=(1024 + step) / 5.0 + 8 * math.sin(step),
            memory_bytes=1_300_000_000 + 4_000_000 * min(step, 9),
        )
        for step in range(first, last + 1)
    ]


def sample(step: int, at: float) -> list[dict[str, Any]]:
    """Return the answers to two prompts at a step."""
    better = step > 0
    first = "Return the absolute value of a number." if better else "I am not sure what you mean by that.\nSorry!"
    second = "Raised when a key is not found in a mapping." if better else "KeyError KeyError KeyError KeyError"
    return [
        event("sample_answer", at, step=step, prompt="Write the docstring of abs(x).", answer=first),
        event("sample_answer", at, step=step, prompt="What is KeyError?", answer=second),
    ]


def checkpoint(step: int, at: float) -> dict[str, Any]:
    """Return a checkpoint that was written."""
    path = f"runs/demo/checkpoints/step-{step:06d}"
    return event("checkpoint_written", at, step=step, path=path, bytes=5_600_000 + step, seconds=0.21)


def first_stretch() -> list[dict[str, Any]]:
    """Return a run up to step 18, where Ctrl-C interrupts it."""
    saved = "runs/demo/checkpoints/step-000018"
    return [
        *setup(0),
        event("evaluated", 10, step=0, loss=3.81, tokens=4321, seconds=4.0),
        *sample(0, 12),
        *steps(1, 12, 12),
        checkpoint(12, 72.3),
        *steps(13, 18, 73),
        checkpoint(18, 104),
        event("run_interrupted", 104, step=18, signal="SIGINT", checkpoint=saved),
    ]


def second_stretch() -> list[dict[str, Any]]:
    """Return what follows an hour later: a resume, a kill after step 27 whose last checkpoint is at 24."""
    return [
        *setup(3700, resumed_from=18),
        *steps(19, 24, 3705),
        checkpoint(24, 3736),
        *steps(25, 27, 3736),
    ]


def third_stretch() -> list[dict[str, Any]]:
    """Return the end: a damaged checkpoint is skipped, steps 19 to 36 are taken, some of them again."""
    damaged = "runs/demo/checkpoints/step-000024"
    return [
        event("checkpoint_damaged", 9000, path=damaged, reason="adapter.safetensors has 12 bytes, expected 5,600,024."),
        *setup(9000, resumed_from=18),
        *steps(19, 36, 9005),
        checkpoint(36, 9096),
        event("evaluated", 9100, step=36, loss=2.75, tokens=4321, seconds=4.0),
        *sample(36, 9102),
        event(
            "run_finished", 9103, step=36, seconds=103.0, loss_before=3.81, loss_after=2.75, adapter="runs/demo/adapter"
        ),
    ]


def whole_run() -> list[dict[str, Any]]:
    """Return a finished run with an interruption, a kill, a damaged checkpoint and two resumes."""
    return [*first_stretch(), *second_stretch(), *third_stretch()]


def write_run(
    folder: Path,
    events: Iterable[dict[str, Any]],
    *,
    config: str | None = CONFIG,
    manifest: Any = MANIFEST,
    tail: str = "",
) -> Path:
    """Write a run folder and return it; `tail` is put behind the last line."""
    folder.mkdir(parents=True, exist_ok=True)
    # Lone surrogates stay escaped, as an attacker would write them.
    lines = "".join(json.dumps(one) + "\n" for one in events)
    (folder / "events.jsonl").write_text(lines + tail, encoding="utf-8")
    if config is not None:
        (folder / "config.yaml").write_text(config, encoding="utf-8")
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder
