"""The hash of a config changes with every key that decides the weights, and with no other."""

from __future__ import annotations

import pytest

from bedstone.train.config import TrainConfig, config_hash, parse_config
from bedstone.train.config.identity import NOT_HASHED

BASE = {
    "base_model": "models/tiny",
    "datasets": [{"type": "stdlib_docstrings"}],
    "adapter": "lora",
    "sample_prompts": ["Why?"],
}
OTHER = {
    "base_model": "models/other", "trust_remote_code": True, "device": "cpu", "bf16": False,
    "gradient_checkpointing": True, "attn_implementation": "eager", "kernels": "reference", "load_in_4bit": True, "load_in_8bit": True,
    "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True, "quantization": {"scheme": "int8"}, "adapter": None, "lora_r": 4, "lora_alpha": 8,
    "lora_dropout": 0.1, "lora_target_modules": ["q_proj"], "lora_target_linear": True, "lora_modules_to_save": ["x"],
    "peft_use_dora": True, "peft_use_rslora": True, "datasets": [{"type": "stdlib_docstrings", "limit": 3}],
    "test_datasets": [{"type": "stdlib_docstrings"}], "val_set_size": 5, "sequence_len": 64,
    "excess_length_strategy": "drop", "train_on_inputs": True, "dataloader_num_workers": 2, "micro_batch_size": 2,
    "gradient_accumulation_steps": 2, "eval_batch_size": 2, "num_epochs": 2, "max_steps": 9, "learning_rate": 1e-3,
    "optimizer": "adamw_torch", "lr_scheduler": "linear", "warmup_steps": 1, "warmup_ratio": 0.1,
    "cosine_min_lr_ratio": 0.1, "weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6,
    "max_grad_norm": 2.0, "logging_steps": 2, "eval_steps": 2, "save_steps": 2, "save_total_limit": 1,
    "output_dir": "elsewhere", "seed": 1, "sample_prompts": ["How?"], "sample_max_new_tokens": 9,
}  # fmt: skip
FREE = {
    "device", "dataloader_num_workers", "test_datasets", "eval_batch_size", "eval_steps", "logging_steps",
    "sample_prompts", "sample_max_new_tokens", "save_steps", "save_total_limit", "output_dir",
}  # fmt: skip
# What a key needs beside it to be allowed at all.
BESIDE = {
    "eval_steps": {"val_set_size": 3},
    "eval_batch_size": {"val_set_size": 3},
    "bnb_4bit_quant_type": {"load_in_4bit": True},
    "bnb_4bit_use_double_quant": {"load_in_4bit": True},
}


def test_the_table_of_other_values_has_every_key():
    """A new key must be put on one side or the other."""
    assert set(OTHER) == set(TrainConfig.model_fields)


@pytest.mark.parametrize("key", sorted(set(OTHER) - {"optimizer"}))
def test_a_key_changes_the_hash_unless_it_leaves_the_weights_alone(key):
    """`optimizer` has only one value so far."""
    base = BASE | BESIDE.get(key, {})
    changed = base | {key: OTHER[key]}
    same = config_hash(parse_config(base)) == config_hash(parse_config(changed))
    assert same == (key in FREE)


def test_values_count_and_not_spellings():
    """A default written out, a number as integer or float, and the order of keys change nothing."""
    spelled = {"seed": 42, "weight_decay": 0, "val_set_size": 0.0, **dict(reversed(BASE.items()))}
    assert config_hash(parse_config(spelled)) == config_hash(parse_config(BASE))


def test_every_exception_has_a_reason_and_is_a_key():
    """The table is the documentation."""
    assert set(NOT_HASHED) == FREE
    assert all(NOT_HASHED.values())
