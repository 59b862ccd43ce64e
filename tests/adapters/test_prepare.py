"""A model made ready for adapters is frozen, stays packed, and checkpoints with gradients where asked."""

from __future__ import annotations

import peft
import pytest
import torch

import bedstone as bs
from bedstone import adapters, quant
from bedstone.core.errors import UnsupportedError
from bedstone.testing import tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOKENS = torch.arange(16).view(1, 16)


def llama(dtype=torch.float32):
    model = tiny_llama().to(dtype)
    bs.quantize(model, "nf4")
    return model


def test_everything_is_frozen_and_packed_weights_keep_their_bits():
    """Their very memory, and their dtype."""
    model = llama(torch.bfloat16)
    before = {name: p for name, p in model.named_parameters() if isinstance(p, quant.QuantizedTensor)}
    packed = {name: {part: value.clone() for part, value in p.parts.items()} for name, p in before.items()}
    assert adapters.prepare_for_adapters(model, norms_in_fp32=True) is model
    after = dict(model.named_parameters())
    assert not any(parameter.requires_grad for parameter in after.values())
    assert before
    for name, parameter in before.items():
        assert after[name] is parameter
        assert parameter.dtype == torch.bfloat16
        assert all(torch.equal(value, packed[name][part]) for part, value in parameter.parts.items())


@pytest.mark.parametrize("wanted", [True, False])
def test_norms_become_float32_only_where_asked(wanted):
    """And nothing else does: peft would turn the embedding too."""
    model = adapters.prepare_for_adapters(llama(torch.bfloat16), norms_in_fp32=wanted)
    full = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    norms = {name for name, _ in model.named_parameters() if "norm" in name}
    assert full == (norms if wanted else set())


def test_the_norms_of_torch_are_norms():
    """Batch norm with its running statistics."""
    model = torch.nn.Sequential(torch.nn.LayerNorm(8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 8)).bfloat16()
    adapters.prepare_for_adapters(model, norms_in_fp32=True)
    assert [layer.weight.dtype for layer in model] == [torch.float32, torch.float32, torch.bfloat16]
    assert model[1].running_mean.dtype == torch.float32


def gradients(model) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj"]))
    adapted.train()
    adapted(input_ids=TOKENS, labels=TOKENS).loss.backward()
    return {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}


def test_gradient_checkpointing_gives_the_same_gradients():
    """Bit for bit, in every layer; the model really computes twice."""
    model = adapters.prepare_for_adapters(llama(), gradient_checkpointing=True)
    calls = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    found, expected = gradients(model), gradients(adapters.prepare_for_adapters(llama()))
    assert len(calls) == 2
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_checkpoints_of_the_older_kind_find_a_gradient_too():
    """A trainer may choose them afterwards; a frozen embedding would cut them off."""
    model = adapters.prepare_for_adapters(llama(), gradient_checkpointing=True)
    model.activation_checkpointing_enable({"use_reentrant": True})
    assert all(gradient is not None and bool(gradient.any()) for gradient in gradients(model).values())


def test_a_model_without_checkpointing_is_refused_and_left_as_it_was():
    """It is not even frozen."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    with pytest.raises(UnsupportedError) as caught:
        adapters.prepare_for_adapters(model, gradient_checkpointing=True)
    assert str(caught.value) == (
        "A Sequential has no gradient checkpointing; models of transformers have. Leave `gradient_checkpointing` out."
    )
    assert model[0].weight.requires_grad


def test_the_preparation_of_peft_keeps_weights_packed_too():
    """Who calls it out of habit loses nothing but the memory of a float32 embedding."""
    model = peft.prepare_model_for_kbit_training(llama(torch.bfloat16))
    packed = [p for p in model.parameters() if isinstance(p, quant.QuantizedTensor)]
    assert len(packed) == 14
    assert model.get_input_embeddings().weight.dtype == torch.float32


def test_packing_a_model_that_has_an_adapter_leaves_the_adapter_dense():
    """Only the base is packed, whichever comes first; what is learned stays learned and trains on."""
    model = peft.get_peft_model(tiny_llama(), peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    report = bs.quantize(model, "nf4")
    reasons = {reason for name, reason in report.skipped if "lora_" in name}
    assert reasons == {"it belongs to an adapter"}
    assert not [layer.name for layer in report.packed if "lora_" in layer.name]
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == 4
    assert not any(isinstance(p, quant.QuantizedTensor) for p in trained)
    assert isinstance(model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight, quant.QuantizedTensor)
