"""A whole model becomes ternary in place, layer by layer and said, and a refusal changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bedstone import quant
from bedstone.core.errors import InvalidConfigError, UnknownNameError, UnsupportedError
from bedstone.quant import Ternary
from bedstone.quant.bitlinear import BitLinear, BitLinearConfig
from bedstone.quant.bitlinear_model import pack, set_strength, to_bitlinear, unpack
from bedstone.testing import tiny_llama


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


# --- to_bitlinear ----------------------------------------------------------------------------------


def test_every_linear_layer_of_a_llama_is_converted_but_its_tied_head():
    """Weights keep their values and their identity, so an optimizer that exists goes on."""
    model = tiny_llama()
    before, parameters = weights_of(model), list(model.parameters())
    report = to_bitlinear(model)
    assert str(report) == (
        "14 layers are ternary.\nlm_head stays as it is: its weight is that of model.embed_tokens, which is read by row."
    )
    assert all(old is new for old, new in zip(parameters, model.parameters(), strict=True))
    assert all(torch.equal(value, before[name]) for name, value in weights_of(model).items())
    assert model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=3, do_sample=False).shape == (1, 6)


def test_what_is_left_alone_is_said():
    """By name, with the reason."""
    model = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(8, 2),
            "head": nn.Linear(8, 8),
            "hooked": nn.Linear(8, 8),
            "bit": BitLinear(8, 8),
            "packed": nn.Linear(8, 8),
            "body": nn.Linear(8, 8),
        }
    )
    quant.quantize(model["packed"], "int8")
    model["hooked"].forward = model["hooked"].forward
    report = to_bitlinear(model, skip=["head"])
    assert report.converted == ("body",)
    assert dict(report.skipped) == {
        "attention.out_proj": "it is a NonDynamicallyQuantizableLinear, which computes in its own way",
        "head": "skipped by name",
        "hooked": "its forward was replaced by another library",
        "bit": "it is a BitLinear already",
        "packed": "packed already, as int8",
    }


def test_hooks_and_shared_layers_stay():
    """A layer that stands in two places is one layer afterwards, and two that share a weight share it."""
    first, second, third = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8, dtype=torch.bfloat16)
    second.weight = first.weight
    fourth = nn.Linear(8, 8, dtype=torch.bfloat16)
    fourth.weight = third.weight
    called = []
    first.register_forward_hook(lambda *_: called.append(1))
    model = nn.ModuleList([first, second, first, third, fourth])
    to_bitlinear(model)
    assert model[0] is model[2] is first
    assert model[1].weight is first.weight
    assert model[4].weight is third.weight
    first(torch.ones(1, 8))
    assert called == [1]
    assert len(pack(model)) == 2
    assert model[1].weight is first.weight


def test_a_half_precision_model_gets_float32_master_weights():
    """Steps of 1e-3 of a weight would be lost in bfloat16; its activations stay in bfloat16."""
    model = small().bfloat16()
    to_bitlinear(model)
    assert model[0].weight.dtype is torch.float32
    assert model(torch.randn(2, 16, dtype=torch.bfloat16)).dtype is torch.bfloat16


def test_a_lone_layer_and_a_model_without_memory_convert():
    """The root itself may be the linear layer; on the meta device there is nothing to look at."""
    layer = nn.Linear(8, 8)
    assert to_bitlinear(layer).converted == ("weight",)
    assert isinstance(layer, BitLinear)
    with torch.device("meta"):
        model = small()
    assert to_bitlinear(model, BitLinearConfig(norm=True)).converted == ("0", "2")
    assert model(torch.empty(2, 16, device="meta")).shape == (2, 4)


def test_a_frozen_weight_stays_frozen():
    """Also where it has to become float32."""
    model = small().bfloat16().requires_grad_(False)
    to_bitlinear(model)
    assert not model[0].weight.requires_grad


@pytest.mark.parametrize(
    ("damage", "skip", "error", "message"),
    [
        (
            None,
            ["haed"],
            UnknownNameError,
            "No linear layer of the model is called 'haed'. Known: 0, 2. Change `skip`.",
        ),
        (
            float("nan"),
            [],
            quant.NonFiniteWeightError,
            "2: ternary holds finite weights, but the one at (1, 2) is nan. Find out where it comes from; the model is damaged.",
        ),
    ],
)
def test_a_refusal_changes_nothing(damage, skip, error, message):
    """Not even the layers in front of the one that is refused."""
    model = small()
    if damage is not None:
        with torch.no_grad():
            model[2].weight[1, 2] = damage
    with pytest.raises(error) as caught:
        to_bitlinear(model, skip=skip)
    assert str(caught.value) == message
    assert type(model[0]) is nn.Linear


# --- strength --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), "full", True])
def test_a_strength_outside_of_zero_to_one_is_refused(value):
    """And the layers keep the one they had."""
    layer = BitLinear(4, 4)
    with pytest.raises(InvalidConfigError) as caught:
        set_strength(layer, value)
    assert str(caught.value) == f"`strength` (={value!r}) must be a number from 0 to 1."
    assert layer.strength == 1


@pytest.mark.parametrize("function", [pack, unpack, lambda model: set_strength(model, 1)])
def test_a_model_without_such_layers_is_refused(function):
    """Rather than doing nothing and saying nothing."""
    with pytest.raises(InvalidConfigError) as caught:
        function(small())
    assert str(caught.value) == "The model (a Sequential) has no BitLinear. Convert it with to_bitlinear."


# --- pack and unpack -------------------------------------------------------------------------------


def test_a_packed_llama_says_what_it_said_and_takes_a_fourteenth():
    """Logits agree within float32 rounding: now and then a last bit decides a code of the next layer's activations."""
    model = tiny_llama()
    to_bitlinear(model)
    tokens = torch.arange(2, 66).view(2, 32)
    with torch.no_grad():
        before = model(tokens).logits
        report = pack(model)
        after = model(tokens).logits
    assert len(report) == 14
    assert report[0].name == "model.layers.0.self_attn.q_proj"
    assert sum(p.dense_bytes for p in report) > 14 * sum(p.packed_bytes for p in report)
    assert (after - before).abs().max() < 0.01 * before.std()
    assert torch.equal(after.argmax(-1), before.argmax(-1))
    assert pack(model) == []


def test_packing_needs_the_end_of_the_warm_up():
    """A half rounded layer has no packed form; nothing is packed, the layers in front neither."""
    model = small()
    to_bitlinear(model)
    set_strength(model[2], 0.5)
    with pytest.raises(UnsupportedError) as caught:
        pack(model)
    assert str(caught.value) == (
        "2 is at strength 0.5 of its warm-up; packed it would compute something else. Call set_strength(model, 1)."
    )
    assert model[0].is_master


def test_packing_refuses_a_weight_that_diverged():
    """Named, with its place; nothing is packed."""
    model = small()
    to_bitlinear(model)
    with torch.no_grad():
        model[2].weight[0, 3] = float("inf")
    with pytest.raises(quant.NonFiniteWeightError, match=r"^2: ternary holds finite weights, but the one at \(0, 3\)"):
        pack(model)
    assert model[0].is_master


def test_layers_may_round_differently():
    """Each is packed by its own scheme."""
    model = small()
    to_bitlinear(model, BitLinearConfig(Ternary("row")), skip=["2"])
    to_bitlinear(model, BitLinearConfig(Ternary("block", 8)))
    pack(model)
    assert [model[i].weight.scheme for i in (0, 2)] == [Ternary("row"), Ternary("block", 8)]


def test_unpacking_looks_at_every_layer_first():
    """One that was packed with other scales is refused, and the rest stays packed."""
    model = small()
    to_bitlinear(model)
    pack(model)
    model[2].weight = nn.Parameter(Ternary("row").quantize(torch.randn(4, 16)), requires_grad=False)
    with pytest.raises(quant.QuantizationError, match=r"^2 is packed by Ternary"):
        unpack(model)
    assert not model[0].is_master


def test_a_model_learns_packs_unpacks_and_learns_on():
    """The whole life of a ternary model; an optimizer is made anew after each change of state."""
    torch.manual_seed(0)
    model = tiny_llama().train()
    to_bitlinear(model)
    tokens = torch.arange(2, 66).view(2, 32)

    def learn(steps: int) -> tuple[float, float]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses = []
        for _ in range(steps):
            loss = model(input_ids=tokens, labels=tokens).loss
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return losses[0], losses[-1]

    first, learned = learn(15)
    pack(model)
    unpack(model)
    again, last = learn(5)
    assert learned < 0.8 * first
    assert again < learned + 0.1  # it goes on where it was, but for what the last step of `learned` changed
    assert last < again
