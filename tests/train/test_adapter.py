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


def test_an_unknown_module_to_save_lists_the_known(config):
    """Peft says nothing and leaves it out."""
    with pytest.raises(UnknownNameError) as caught:
        adapted(config, lora_modules_to_save=["embed_tokenz"])
    assert str(caught.value) == (
        "No layer of the model is called 'embed_tokenz'. Did you mean 'embed_tokens'? Known: down_proj, embed_tokens, "
        "gate_proj, input_layernorm, k_proj, lm_head, norm, o_proj, post_attention_layernorm, q_proj, up_proj, v_proj. "
        "Change `lora_modules_to_save`."
    )


def test_another_module_is_trained_whole_beside_the_adapter(config):
    """Nothing tied is concerned, and nobody is warned that it is."""
    whole = [name for name in trainable(adapted(config, lora_modules_to_save=["model.norm"])) if "lora_" not in name]
    assert whole == ["base_model.model.model.norm.modules_to_save.default.weight"]


@pytest.mark.parametrize("names", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_a_tied_embedding_is_trained_once_and_stays_tied(config, names):
    """Peft keeps it tied only when told to, and adds to the list that it is given."""
    settings = parse_config(config(lora_modules_to_save=names))
    model = prepare_adapter(tiny_llama(), settings, seed=5)
    whole = [name for name in trainable(model) if "lora_" not in name]
    assert whole == ["base_model.model.model.embed_tokens.modules_to_save.default.weight"]
    assert settings.lora_modules_to_save == names


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=1, n_positions=16))


def test_the_linear_layers_of_gpt2_are_known(config):
    """They are of a class of their own, with the weight transposed."""
    settings = parse_config(config(lora_target_modules=["c_attn"]))
    assert len(trainable(prepare_adapter(gpt2(), settings, seed=5))) == 2
    with pytest.raises(
        InvalidConfigError, match=r"the smaller side of transformer\.h\.0\.attn\.c_attn, min\(8, 24\) = 8\."
    ):
        prepare_adapter(gpt2(), settings.model_copy(update={"lora_r": 9}), seed=5)


def test_what_peft_refuses_is_told_with_the_key_to_change(config):
    """Mamba's output projection cannot have an adapter."""
    from transformers import MambaConfig, MambaForCausalLM

    mamba = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, state_size=2))
    with pytest.raises(InvalidConfigError, match=r"^peft cannot adapt this model: .* Change `lora_target_modules`, or"):
        prepare_adapter(mamba, parse_config(config(lora_r=1)), seed=5)
