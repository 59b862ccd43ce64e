"""A key that does not exist gets an answer: what became of it, or which name was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from bedstone.train.config.known_keys import unknown_key, unknown_value
from bedstone.train.config.schema import DatasetConfig, TrainConfig

KEYS = Path(__file__).with_name("axolotl_keys.txt").read_text(encoding="utf-8")
TOP_LEVEL, IN_DATASET = (part.split("]")[1].split() for part in KEYS.split("[")[1:])


def answer(name: str, *, in_dataset: bool = False, value=None) -> str:
    fields = (DatasetConfig if in_dataset else TrainConfig).model_fields
    return " ".join(unknown_key(name, fields, in_dataset=in_dataset, value=value))


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_every_top_level_key_of_axolotl_exists_or_is_refused_by_name(name):
    """A fallback answer ("All keys are listed in") would mean that the key was forgotten."""
    text = answer(name)
    assert name in TrainConfig.model_fields or ("All keys are" not in text and "Did you mean" not in text), text


@pytest.mark.parametrize("name", IN_DATASET)
def test_every_data_set_key_of_axolotl_exists_or_is_refused_by_name(name):
    """The same inside an entry of `datasets`."""
    text = answer(name, in_dataset=True)
    assert name in DatasetConfig.model_fields or ("All keys are" not in text and "Did you mean" not in text), text


@pytest.mark.parametrize(("model", "in_dataset"), [(TrainConfig, False), (DatasetConfig, True)])
def test_no_key_of_ours_is_refused(model, in_dataset):
    """A prefix such as `wandb_*` must not swallow a key that exists."""
    answers = {name: answer(name, in_dataset=in_dataset) for name in model.model_fields}
    assert all(text == f"unknown key. Did you mean {name!r}?" for name, text in answers.items())


def test_every_key_named_in_an_answer_exists():
    """An answer that sends people to a key that is refused as well would be a bad joke."""
    import re

    from bedstone.train.config.axolotl_keys import AXOLOTL_IN_DATASET, AXOLOTL_TOP_LEVEL
    from bedstone.train.config.other_names import OTHER_IN_DATASET, OTHER_TOP_LEVEL

    known = {*TrainConfig.model_fields, *DatasetConfig.model_fields}
    groups = (*AXOLOTL_TOP_LEVEL, *AXOLOTL_IN_DATASET, *OTHER_TOP_LEVEL, *OTHER_IN_DATASET)
    named = {key for group in groups for key in re.findall(r"`([a-z_0-9]+)(?::[^`]*)?`", group.instead)}
    assert named - known <= {"adapter", "sdpa"}


def test_no_name_has_two_answers():
    """The tables are read as one; a name twice would hide an answer."""
    from bedstone.train.config.axolotl_keys import AXOLOTL_IN_DATASET, AXOLOTL_TOP_LEVEL
    from bedstone.train.config.other_names import OTHER_IN_DATASET, OTHER_TOP_LEVEL

    for tables in (AXOLOTL_TOP_LEVEL + OTHER_TOP_LEVEL, AXOLOTL_IN_DATASET + OTHER_IN_DATASET):
        names = [name for group in tables for name in group.names.split()]
        assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lora_rr", "unknown key. Did you mean 'lora_r'?"),
        ("LEARNING_RATE", "unknown key. Did you mean 'learning_rate'?"),
        ("zebra", "unknown key. All keys are listed in docs/reference/config.md."),
        ("lr", "unknown key. Use `learning_rate`."),
        ("max_length", "unknown key. Use `sequence_len`."),
        ("split", "unknown key. It belongs in an entry of `datasets`."),
        (
            "wandb_anything",
            "not supported yet (planned). Each run writes its numbers to `events.jsonl` in `output_dir`.",
        ),
        ("deepspeed", "not supported (not planned). One device trains at present; FSDP is planned."),
    ],
)
def test_the_whole_answer_for_a_top_level_key(name, text):
    """Typing errors, other tools' names, another place, axolotl's keys."""
    assert answer(name) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pth", "unknown key. Did you mean 'path'?"),
        ("learning_rate", "unknown key. It belongs at the top level, outside the list of data sets."),
        ("message_field_role", "unknown key. Use `message_property_mappings: {role: ..., content: ...}`."),
        ("train_on_eos", "not supported (not planned). The end of a trained turn is always learned."),
    ],
)
def test_the_whole_answer_for_a_key_of_a_data_set(name, text):
    """The same, inside an entry."""
    assert answer(name, in_dataset=True) == text


def test_a_nested_section_of_axolotl_rs_is_answered_key_by_key():
    """Its keys are listed under the names they have here."""
    assert answer("training", value={"epochs": 3, "batch_size": 4, "learning_rate": 1e-4}) == (
        "is a nested section of axolotl-rs; keys are flat here. Instead of what it holds, write at the top level: "
        "`num_epochs` (not `epochs`), `micro_batch_size` (not `batch_size`), `learning_rate`."
    )
    assert answer("dataset", value={"path": "x", "format": "alpaca", "val_split": 0.05}) == (
        "is a nested section of axolotl-rs; keys are flat here. Instead of what it holds, write at the top level: "
        "`datasets[0].path` (not `path`), `datasets[0].type` (not `format`), `val_set_size` (not `val_split`)."
    )
    assert answer("lora", value={}) == "is a nested section of axolotl-rs; keys are flat here. Remove it."


def test_every_key_that_a_section_is_sent_to_exists():
    """Each target of the table is a key here."""
    from bedstone.train.config.other_names import NESTED_SECTIONS

    targets = {key.removeprefix("datasets[0].") for section in NESTED_SECTIONS.values() for key in section.values()}
    assert targets <= {*TrainConfig.model_fields, *DatasetConfig.model_fields}


def test_a_value_of_another_tool_gets_its_answer():
    """Planned, renamed, and simply wrong."""
    assert unknown_value("optimizer", "adamw_8bit") == "It is not supported yet (planned). Use `adamw_torch`."
    assert unknown_value("lr_scheduler", "constant_with_warmup") == "Use `constant` with `warmup_steps`."
    assert unknown_value("optimizer", "zebra") == ""
