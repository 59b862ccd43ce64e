"""peft takes a BitLinear for the linear layer that it is: LoRA trains, saves, loads and merges on it, master or packed."""

from __future__ import annotations

import copy

import pytest
import torch

from bedstone import quant
from bedstone.quant import QuantizedTensor
from bedstone.quant.bitlinear import BitLinear, BitLinearConfig
from bedstone.quant.bitlinear_model import pack, to_bitlinear
from bedstone.testing import tiny_llama

peft = pytest.importorskip("peft")
# peft asks transformers for an attribute under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOKENS = torch.arange(2, 34).view(1, 32)
KINDS = ["master", "packed"]


def ternary_llama(kind: str, **options):
    model = tiny_llama()
    to_bitlinear(model, BitLinearConfig(**options))
    if kind == "packed":
        pack(model)
    return model


def lora(model):
    torch.manual_seed(0)
    return peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "down_proj"]))


def train(model, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=TOKENS, labels=TOKENS).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=TOKENS).logits


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_lora_starts_as_nothing_trains_saves_and_loads(kind, norm, tmp_path):
    """The wrapped layer stays a BitLinear; only the adapter moves; a fresh model with the saved adapter says the same."""
    base = ternary_llama(kind, norm=norm)
    fresh = copy.deepcopy(base)
    before = logits(base)
    model = lora(base)
    assert isinstance(model.base_model.model.model.layers[0].self_attn.q_proj.base_layer, BitLinear)
    assert torch.equal(logits(model), before)
    first, second = train(model, 2)
    assert second < first
    trained = logits(model)
    assert (trained - before).abs().max() > 0.1
    assert all("lora_" in name for name, p in model.named_parameters() if p.requires_grad)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(peft.PeftModel.from_pretrained(fresh, tmp_path)), trained)


def test_layers_pack_below_an_adapter():
    """The adapter is there first, then the master weights are packed: the output stays."""
    model = lora(ternary_llama("master"))
    train(model, 2)
    before = logits(model)
    assert len(pack(model)) == 14
    torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-3)
    assert train(model, 2)[1] < train(model, 2)[0] + 1


def test_dense_again_it_merges_up_to_int8_rounding():
    """The adapter saw the activations themselves, the merged weight sees them rounded: half a step of each at most."""
    layer = BitLinear(96, 32)
    pack(layer)
    model = peft.get_peft_model(torch.nn.Sequential(layer), peft.LoraConfig(r=4, lora_alpha=32, target_modules=["0"]))
    with torch.no_grad():
        model.base_model.model[0].lora_B["default"].weight.normal_()
    x = torch.randn(8, 96)
    base, adapted = layer(x), model(x)
    delta = model.base_model.model[0].get_delta_weight("default")
    quant.dequantize(model)
    merged = model.merge_and_unload()
    assert type(merged[0]) is BitLinear
    bound = x.abs().amax(-1, keepdim=True) / 127 / 2 * delta.abs().sum(1)
    assert ((merged(x) - adapted).abs() <= bound * 1.001 + 1e-4).all()
    assert (adapted - base).abs().max() > 10 * bound.max()


@pytest.mark.parametrize("kind", KINDS)
def test_merged_into_trits_the_adapter_is_rounded_too(kind):
    """It merges into the weight that is there, which stays ternary: allowed, and not the adapted model. The page says so."""
    model = lora(ternary_llama(kind))
    train(model, 2)
    adapted = logits(model)
    merged = model.merge_and_unload()
    weight = merged.model.layers[0].self_attn.q_proj.rounded_weight()
    assert isinstance(weight, QuantizedTensor) == (kind == "packed")
    dense = weight.dequantize() if isinstance(weight, QuantizedTensor) else weight
    assert len(dense.unique()) == 3
    assert (logits(merged) - adapted).abs().max() > 0.05
