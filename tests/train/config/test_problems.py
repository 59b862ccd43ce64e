"""Each way in which a value can be wrong has its sentence: rule, value, what to do."""

from __future__ import annotations

import math

import pytest

from bedstone.core.errors import InvalidConfigError
from bedstone.train.config import parse_config
from bedstone.train.config.problems import shown

BASE = {"base_model": "models/tiny", "datasets": [{"type": "stdlib_docstrings"}]}


def refusal(**keys) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(BASE | keys)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "8", 'must be a whole number, not "8". Remove the quotes.'),
        ("seed", "many", 'must be a whole number, not "many".'),
        ("seed", True, "must be a whole number, not true."),
        ("seed", 2.0, "must be a whole number, not 2.0. Write 2."),
        ("seed", 2.5, "must be a whole number, not 2.5."),
        ("seed", -1, "must be 0 or more, not -1."),
        ("seed", 2**63, f"must be below {2**63}, not {2**63}."),
        ("learning_rate", 0, "must be above 0, not 0."),
        ("learning_rate", math.inf, "must be a finite number, not Infinity."),
        ("learning_rate", "1e-4", 'must be a number, not "1e-4". Remove the quotes.'),
        ("adam_beta2", 1, "must be below 1, not 1."),
        ("cosine_min_lr_ratio", 1.5, "must be 1 or less, not 1.5."),
        ("sequence_len", 4, "must be 8 or more, not 4."),
        ("gradient_checkpointing", "yes", 'must be true or false, not "yes".'),
        ("gradient_checkpointing", "true", 'must be true or false, not "true". Remove the quotes.'),
        ("gradient_checkpointing", 1, "must be true or false, not 1."),
        ("kernels", "fast", 'must be auto, measure, exact, reference or require:<implementation>, each also with `,strict` behind it, not "fast".'),
        ("output_dir", 5, "must be text, not 5. Put it in quotes."),
        ("output_dir", "", 'must not be empty, not "".'),
        ("output_dir", ["a"], 'must be text, not ["a"].'),
        ("sample_prompts", "Why?", 'must be a list, not "Why?". Write [Why?].'),
        ("sample_prompts", {"a": 1}, 'must be a list, not {"a": 1}.'),
        ("datasets", [], "must have at least 1 entry, not []."),
        ("bf16", 1, "must be auto, true or false, not 1."),
        ("bf16", "yes", 'must be auto, true or false, not "yes".'),
        (
            "val_set_size",
            1.0,
            "must be a share of the rows from 0 up to, not including, 1, or a whole number of rows, not 1.0.",
        ),
        (
            "val_set_size",
            "5%",
            'must be a share of the rows from 0 up to, not including, 1, or a whole number of rows, not "5%".',
        ),
        ("excess_length_strategy", "error", "must be 'truncate', 'drop' or 'raise', not \"error\". Use `raise`."),
        ("optimizer", "adamw_8bit", ("must be 'adamw_torch', not \"adamw_8bit\". It is not supported yet (planned). "
         "Use `adamw_torch`.")),
        ("seed", None, "has no value. Give one, or remove the line: the default is 42."),
        ("datasets", None, "has no value. Give one."),
        ("zebra", None, "unknown key. All keys are listed in docs/reference/config.md."),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_by_rule_value_and_remedy(key, value, message):
    """The whole sentence."""
    assert refusal(**{key: value}) == f"{key}: {message}"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a.jsonl", 'datasets[0]: must be a mapping with the keys of one data set, not "a.jsonl".'),
        (
            {"type": {"format": "x"}},
            (
                'datasets[0].type: must be text, not {"format": "x"}. '
                "Prompt templates written in the config are not supported yet (planned); use `type: alpaca`."
            ),
        ),
        ({"type": "stdlib_docstrings", "limit": 0}, "datasets[0].limit: must be 1 or more, not 0."),
        (
            {"type": "chat_template", "path": "a", "roles_to_train": []},
            "datasets[0].roles_to_train: must have at least 1 entry, not [].",
        ),
        (
            {"type": "chat_template", "path": "a", "message_property_mappings": {"from": "x"}},
            (
                "datasets[0].message_property_mappings: may have the entries role and content only; found from, "
                'not {"from": "x"}.'
            ),
        ),
        (
            {"type": "chat_template", "path": "a", "message_property_mappings": {"role": 1}},
            "datasets[0].message_property_mappings.role: must be text, not 1. Put it in quotes.",
        ),
        (
            {"type": "chat_template", "path": "a", "message_property_mappings": "role"},
            'datasets[0].message_property_mappings: must be a mapping of keys to values, not "role".',
        ),
    ],
)
def test_a_wrong_data_set_is_told_with_its_place(entry, message):
    """Entry number and key."""
    assert refusal(datasets=[entry]) == message


def test_a_share_of_zero_is_none_and_a_row_count_stays():
    """0, 0.0 and a number of rows are all possible sizes."""
    sizes = [parse_config(BASE | {"val_set_size": size}).val_set_size for size in (0, 0.0, 0.25, 1, 500)]
    assert sizes == [0, 0, 0.25, 1, 500]
    assert [type(size) for size in sizes] == [int, int, float, int, int]


def test_a_property_mapping_keeps_what_it_does_not_name():
    """`{role: from}` leaves `content` as it is."""
    entry = {"type": "chat_template", "path": "a.jsonl", "message_property_mappings": {"role": "from"}}
    mapping = parse_config(BASE | {"datasets": [entry]}).datasets[0].message_property_mappings
    assert mapping == {"role": "from", "content": "content"}


def test_a_long_value_is_cut():
    """The message stays one line of a terminal."""
    assert shown("x" * 100) == '"' + "x" * 56 + "..."
