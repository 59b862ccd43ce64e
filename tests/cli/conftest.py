"""A small run that the commands can start: a tiny model, forty rows, a configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import yaml

from bedstone.testing import save_tiny_model

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Job:
    """A configuration file and the folder that its run will write."""

    config: Path
    run: Path

    def change(self, **values):
        """Write other values into the configuration."""
        self.config.write_text(yaml.safe_dump(yaml.safe_load(self.config.read_text()) | values))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """The folder of a model that loads in milliseconds."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_tiny_model(folder)
    return folder


@pytest.fixture
def job(tmp_path, tiny_model):
    """A run of a few steps with held-out rows and a sample prompt."""
    rows = [{"instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = Job(tmp_path / "job.yaml", tmp_path / "run")
    made.config.write_text("{}")
    made.change(
        base_model=str(tiny_model),
        adapter="lora",
        device="cpu",
        datasets=[{"type": "alpaca", "path": str(tmp_path / "rows.jsonl")}],
        val_set_size=4,
        max_steps=6,
        learning_rate=0.01,
        sample_prompts=["Say 3."],
        sample_max_new_tokens=8,
        output_dir=str(made.run),
    )
    return made
