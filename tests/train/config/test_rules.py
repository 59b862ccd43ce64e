"""Rules between keys: what may not stand together, and what has no effect where it stands."""

from __future__ import annotations

import pytest

from bedstone.core.errors import InvalidConfigError
from bedstone.train.config import TrainConfig, parse_config
from bedstone.train.config.rules import idle_keys

BASE = {"base_model": "models/tiny", "datasets": [{"type": "stdlib_docstrings"}]}
NO_ADAPTER = (
    "has no effect: `adapter` is not set, so the whole model is trained. Write `adapter: lora`. Or remove this key."
)
NO_EVALUATION = (
    "has no effect: there is nothing to evaluate on. Set `test_datasets` or `val_set_size`. Or remove this key."
)


def refusal(**keys) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(BASE | keys)
    return str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lora_r": 4}, f"lora_r: {NO_ADAPTER}"),
        ({"lora_target_modules": ["q_proj"]}, f"lora_target_modules: {NO_ADAPTER}"),
        ({"peft_use_dora": True}, f"peft_use_dora: {NO_ADAPTER}"),
        (
            {"adapter": "lora", "lora_target_modules": ["q_proj"], "lora_target_linear": True},
            (
                "lora_target_linear: stands beside `lora_target_modules`; both say which layers get an adapter. "
                "Keep one of the two."
            ),
        ),
        (
            {"warmup_steps": 3, "warmup_ratio": 0.1},
            "warmup_ratio: stands beside `warmup_steps`; both say how long the warm-up is. Keep one of the two.",
        ),
        (
            {"warmup_steps": 5, "max_steps": 5},
            (
                "warmup_steps: must be below `max_steps` (=5), not 5: the learning rate would never reach its height. "
                "A tenth of `max_steps` is usual."
            ),
        ),
        (
            {"max_steps": 5, "num_epochs": 1},
            (
                "num_epochs: has no effect: `max_steps` says how long the run is. "
                "Keep one of the two; `--set num_epochs=` takes it away."
            ),
        ),
        ({"eval_steps": 5}, f"eval_steps: {NO_EVALUATION}"),
        ({"eval_batch_size": 5}, f"eval_batch_size: {NO_EVALUATION}"),
        (
            {"val_set_size": 0.1, "test_datasets": [{"type": "stdlib_docstrings"}]},
            "val_set_size: stands beside `test_datasets`; both say what the loss is measured on. Keep one of the two.",
        ),
        (
            {"lr_scheduler": "linear", "cosine_min_lr_ratio": 0.1},
            (
                "cosine_min_lr_ratio: has no effect: only `lr_scheduler: cosine` reads it. "
                "Use that schedule. Or remove this key."
            ),
        ),
        (
            {"sample_max_new_tokens": 9},
            "sample_max_new_tokens: has no effect: `sample_prompts` is empty. List questions there. Or remove this key.",
        ),
        (
            {"bf16": True, "device": "cpu"},
            (
                "bf16: asks for bfloat16 on the CPU, where most processors compute it about ten times slower than float32. "
                "Write `bf16: auto`, which chooses for the device."
            ),
        ),
        (
            {"device": "cdua:1"},
            (
                "device: (='cdua:1') names no device. Did you mean 'cuda'? Known: auto, cpu, cuda, xpu, mps; "
                "with a number: 'cuda:1'."
            ),
        ),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, message):
    """The whole sentence, for each rule."""
    assert refusal(**keys) == message


@pytest.mark.parametrize(
    "keys",
    [
        {"adapter": "lora", "lora_r": 4, "peft_use_dora": True, "lora_target_linear": True},
        {"warmup_steps": 4, "max_steps": 5},
        {"warmup_steps": 0, "max_steps": 1},
        {"warmup_ratio": 0.5, "num_epochs": 3},
        {"val_set_size": 0.1, "eval_steps": 5},
        {"test_datasets": [{"type": "stdlib_docstrings", "split": "heldout"}], "eval_batch_size": 2, "val_set_size": 0},
        {"cosine_min_lr_ratio": 0.1},
        {"bf16": True, "device": "auto"},
        {"bf16": False, "device": "cpu"},
        {"device": "cuda:GPU-12ab"},
    ],
)
def test_the_other_side_of_each_rule_is_accepted(keys):
    """A rule that refuses too much is a rule that is wrong."""
    assert isinstance(parse_config(BASE | keys), TrainConfig)


def test_an_empty_key_is_not_a_written_one():
    """`eval_steps:` without a value asks for nothing."""
    keys = {"eval_steps": None, "lora_target_modules": None, "max_steps": None, "cosine_min_lr_ratio": None}
    assert parse_config(BASE | keys | {"lr_scheduler": "linear", "num_epochs": 2}).num_epochs == 2


def test_a_rule_is_left_out_when_a_key_that_it_reads_is_wrong():
    """No message that would go away by itself: without an adapter `lora_r` has no effect, but one was meant."""
    assert refusal(adapter="dora", lora_r=4, lora_target_modules=["a"], load_in_4bit=True) == (
        "adapter: must be 'lora' or 'qlora', not \"dora\". Use `adapter: lora` with `peft_use_dora: true`."
    )


def test_a_key_with_its_default_is_idle_and_no_problem():
    """The effective config shows it as a comment."""
    config = parse_config(BASE)
    assert {"lora_r", "eval_steps", "sample_max_new_tokens"} <= set(idle_keys(config))
    assert "num_epochs" not in idle_keys(config)
