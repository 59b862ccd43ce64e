"""A tiny model and a few rows on the disk, made once; and a configuration over them."""

from __future__ import annotations

import json

import pytest

from bedstone.testing.tiny import save_tiny_model

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


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A folder with a two-layer Llama and its tokenizer."""
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory):
    """Sixteen alpaca rows of different lengths."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = [{"instruction": f"Say {word}.", "output": " ".join([word] * (1 + i % 4))} for i, word in enumerate(WORDS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(tiny_folder, rows_file, tmp_path):
    """A function that returns a runnable configuration as a dictionary, with changes."""

    def make(**changes):
        values = {
            "base_model": str(tiny_folder),
            "adapter": "lora",
            "lora_r": 4,
            "lora_alpha": 8,
            "lora_dropout": 0.2,
            "datasets": [{"type": "alpaca", "path": str(rows_file)}],
            "val_set_size": 4,
            "sequence_len": 256,
            "micro_batch_size": 2,
            "max_steps": 8,
            "learning_rate": 1e-2,
            "save_steps": 2,
            "device": "cpu",
            "output_dir": str(tmp_path / "run"),
        }
        return {name: value for name, value in (values | changes).items() if value is not ...}

    return make
