"""Adapters are peft's; what cannot work is refused by name first."""

from __future__ import annotations

import pytest
import torch

from bedstone.core.errors import InvalidConfigError, UnknownNameError
from bedstone.testing.tiny import tiny_llama
from bedstone.train.adapter import prepare_adapter, trainable
from bedstone.train.config import parse_config


def adapted(config, **changes):
    return prepare_adapter(tiny_llama(), parse_config(config(**changes)), seed=5)


def test_only_the_adapter_is_trained(config):
    """Names tell: every trained parameter is a LoRA matrix."""
    assert all("lora_" in name for name in trainable(adapted(config)))


def test_an_empty_adapter_trains_everything(config):
    """Full fine-tuning is the absence of an adapter, not an error."""
    model = adapted(config, adapter="", lora_r=..., lora_alpha=..., lora_dropout=...)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_first_weights_are_a_function_of_the_seed_and_leave_the_global_generator_alone(config):
    """Two adapters of one seed are equal; whoever draws next draws the same."""
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, second = trainable(adapted(config)), trainable(adapted(config))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("key", "part"), [("peft_use_dora", "magnitude"), ("peft_use_rslora", None)])
def test_dora_and_rslora_reach_peft(config, key, part):
    """DoRA adds magnitudes, rsLoRA changes the scale to alpha / sqrt(r)."""
    model = adapted(config, **{key: True})
    if part:
        assert any(part in name for name in trainable(model))
    else:
        layer = next(m for name, m in model.named_modules() if name.endswith("q_proj"))
        assert layer.scaling["default"] == pytest.approx(8 / 4**0.5)


def test_an_unknown_target_module_lists_the_known(config):
    """The usual slip: the name of another architecture."""
    with pytest.raises(UnknownNameError) as caught:
        adapted(config, lora_target_modules=["q_prj"])
    assert str(caught.value) == (
        "No linear layer of the model is called 'q_prj'. Did you mean 'q_proj'? Known: down_proj, gate_proj, k_proj, "
        "lm_head, o_proj, q_proj, up_proj, v_proj. Change `lora_target_modules`."
    )


def test_a_rank_beyond_the_layer_names_layer_and_limit(config):
    """The smaller side of the matrix bounds its rank."""
    with pytest.raises(InvalidConfigError) as caught:
        adapted(config, lora_r=65, lora_target_modules=["q_proj"])
    assert str(caught.value) == (
        "`lora_r` (=65) must not exceed the smaller side of model.layers.0.self_attn.q_proj, min(64, 64) = 64. "
        "Set `lora_r` to at most 64, or target other layers."
    )
