"""The effective config shows every value with its origin, and is a config itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedstone.train.config import TrainConfig, dump_effective, load_config, parse_config
from bedstone.train.config.dataset_rules import FORMAT_KEYS
from bedstone.train.config.yaml_lines import read_document

DEMO = Path(__file__).parents[3] / "examples" / "smollm2-docstrings.yaml"
BASE = {"base_model": "models/tiny", "datasets": [{"type": "stdlib_docstrings"}]}


def reread(config: TrainConfig) -> TrainConfig:
    document = read_document(dump_effective(config))
    assert not document.problems
    return parse_config(document.values or {})


def test_each_value_has_its_origin(tmp_path):
    """File, command line, default; keys without effect are comments with the reason."""
    file = tmp_path / "run.yaml"
    file.write_text("base_model: models/tiny\ndatasets:\n  - type: alpaca\n    path: a.jsonl\nmax_steps: 5\n")
    lines = dump_effective(load_config(file, ["learning_rate=1e-9", "datasets.0.limit=3"])).splitlines()
    for line in (
        "base_model: models/tiny  # line 1",
        "  - type: alpaca  # line 3",
        "    path: a.jsonl  # line 4",
        "    limit: 3  # --set",
        "    field_output: output  # default",
        "max_steps: 5  # line 5",
        "# num_epochs: 1  # has no effect: `max_steps` says how long the run is.",
        "learning_rate: 1.0e-09  # --set",
        "output_dir: runs/run  # default",
        "test_datasets: []  # default",
    ):
        assert line in lines
    assert not any("field_messages" in line for line in lines)


def test_every_key_is_there_once():
    """As a value or as a comment."""
    text = dump_effective(parse_config(BASE))
    found = [line.removeprefix("# ").partition(":")[0] for line in text.splitlines() if ":" in line]
    assert sorted(set(found) & set(TrainConfig.model_fields)) == sorted(TrainConfig.model_fields)


def test_the_text_of_the_demo_is_a_config_equal_to_the_demo(tmp_path):
    """The run folder's `config.yaml` can be run again."""
    config = load_config(DEMO)
    again = tmp_path / "again.yaml"
    again.write_text(dump_effective(config), encoding="utf-8")
    assert load_config(again) == config


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
_AWKWARD = st.sampled_from(
    [
        "5e-4",
        "yes",
        "null",
        "010",
        "1:30",
        "# x",
        "a: b",
        "'",
        '"',
        "\n",
        "a\u2028b",
        "\x85",
        "a\r",
        " x ",
        "2024-01-01",
        "*x",
        "-",
    ]
)


@given(
    st.fixed_dictionaries(
        {"base_model": _TEXT | _AWKWARD, "output_dir": _TEXT | _AWKWARD, "sample_prompts": st.lists(_TEXT | _AWKWARD)},
        optional={
            "learning_rate": st.floats(1e-300, 1e300),
            "val_set_size": st.floats(0, 1, exclude_max=True) | st.integers(0, 10**9),
            "seed": st.integers(0, 2**63 - 1),
            "bf16": st.sampled_from(["auto", True, False]),
            "max_steps": st.integers(1, 10**9),
        },
    )
)
def test_any_config_is_read_back_as_it_was(values):
    """Whatever the texts and numbers in it are."""
    config = parse_config(BASE | values)
    assert reread(config) == config


@pytest.mark.parametrize("kind", sorted(FORMAT_KEYS))
def test_a_data_set_of_each_type_is_read_back(kind):
    """Only the keys that the type reads are written, so that none is refused for having no effect."""
    entry = {"type": kind} | ({"path": "a.jsonl"} if "path" in FORMAT_KEYS[kind] else {})
    config = parse_config(BASE | {"datasets": [entry]})
    assert reread(config) == config
