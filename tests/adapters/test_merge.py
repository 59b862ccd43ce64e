"""A merge loses nothing or says what it lost, and happens to all layers or to none."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from torch import nn

import bedstone as bs
from bedstone import adapters, quant
from bedstone.core.errors import InvalidConfigError
from bedstone.quant.model import relative_error
from bedstone.testing import tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

INPUT = torch.randn(8, 64, generator=torch.Generator().manual_seed(3))
TOKENS = torch.arange(16).view(1, 16)


def net(scheme="nf4", layers=2) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(*[nn.Linear(64, 64) for _ in range(layers)])
    if scheme:
        bs.quantize(made, scheme)
    return made


def lora(model: nn.Module, scale=1.0, **config) -> peft.PeftModel:
    """An adapter that does something, far more than packing does when `scale` is 1."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = peft.get_peft_model(model, peft.LoraConfig(**({"r": 8, "target_modules": ["0", "1"]} | config)))
        fill(made, scale)
    return made.eval()


def fill(model: nn.Module, scale=1.0) -> None:
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.2 * scale)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Equal names, types and values."""
    return one.keys() == other.keys() and all(
        type(one[name]) is type(other[name]) and torch.equal(one[name], other[name]) for name in one
    )


# --- exact ---------------------------------------------------------------------------------------


def test_the_base_model_comes_back_without_adapters():
    """The same module, its adapted layers dense, the others packed."""
    base = net(layers=3)
    merged = adapters.merge(lora(base))
    assert merged is base
    assert not any("lora" in name for name in merged.state_dict())
    assert [isinstance(layer.weight, quant.QuantizedTensor) for layer in merged] == [False, False, True]
    assert not any(parameter.requires_grad for parameter in merged.parameters())


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_an_exact_merge_computes_what_the_adapter_did(scale):
    """A small adapter too, which packing again would lose."""
    model = lora(net("ternary"), scale)
    before = model(INPUT)
    assert relative_error(adapters.merge(model)(INPUT), before) < 1e-6


def test_a_half_precision_model_keeps_everything_when_it_is_made_float32_first():
    """Its packed weights are the same in both; bfloat16 would round the sum."""
    base = net(scheme=None).bfloat16()
    bs.quantize(base, "nf4")
    model = lora(base, scale=0.1).float()
    before = model(INPUT)
    merged = adapters.merge(model)
    assert merged[0].weight.dtype == torch.float32
    assert relative_error(merged(INPUT), before) < 1e-6


def test_an_adapter_is_merged_by_name():
    """The other one, though active, is not."""
    model = lora(net())
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["1"]))
    fill(model)
    model.set_adapter("second")
    expected = model(INPUT)
    model.set_adapter("default")
    merged = adapters.merge(model, adapter="second")
    assert relative_error(merged(INPUT), expected) < 1e-6
    assert isinstance(merged[0].weight, quant.QuantizedTensor)  # the second adapter is not in this layer


def test_active_adapters_are_merged_together():
    """As their forward adds them."""
    model = lora(net())
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["1"]))
    fill(model)
    model.base_model.set_adapter(["default", "second"])
    expected = model(INPUT)
    assert relative_error(adapters.merge(model)(INPUT), expected) < 1e-6


def test_modules_that_were_trained_whole_are_kept():
    """Those of the adapter that is merged, not of the one that is active."""
    base = net(scheme=None, layers=3)
    bs.quantize(base, "nf4", skip=["2"])
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["0"]))
    model.add_adapter("whole", peft.LoraConfig(r=2, target_modules=["1"], modules_to_save=["2"]))
    nn.init.ones_(model.base_model.model[2].modules_to_save["whole"].bias)
    merged = adapters.merge(model, adapter="whole")
    assert torch.equal(merged[2].bias, torch.ones(64))


def test_two_layers_that_share_a_packed_weight_part_when_their_adapters_differ():
    """Each computes what it did; merging into the shared weight would add both."""
    base = net()
    base[1].weight = base[0].weight
    model = lora(base)
    expected = model(INPUT)
    merged = adapters.merge(model)
    assert merged[0].weight is not merged[1].weight
    assert relative_error(merged(INPUT), expected) < 1e-6


def test_an_output_head_that_leaves_its_embedding_is_said_to_be_untied():
    """Its embedding stays as it was; a save of a model that says `tied` would lose the head."""
    llama = tiny_llama()
    bs.quantize(llama, "int8")
    embedding = llama.get_input_embeddings().weight.clone()
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        model = lora(llama, target_modules=["lm_head", "q_proj"])
    expected = model(input_ids=TOKENS).logits
    merged = adapters.merge(model)
    assert relative_error(merged(input_ids=TOKENS).logits, expected) < 1e-6
    assert torch.equal(merged.get_input_embeddings().weight, embedding)
    assert merged.config.tie_word_embeddings is False


def test_new_tokens_are_merged_and_what_was_tied_stays_tied():
    """Peft trains single rows of the embedding; head and embedding get the same ones."""
    llama = tiny_llama()
    bs.quantize(llama, "int8")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[3])
    model = peft.get_peft_model(llama, config).eval()
    fill(model)
    for name, parameter in model.named_parameters():
        if "trainable_tokens_delta" in name:
            nn.init.normal_(parameter)
    expected = model(input_ids=TOKENS).logits
    merged = adapters.merge(model)
    assert relative_error(merged(input_ids=TOKENS).logits, expected) < 1e-6
    assert merged.get_output_embeddings().weight is merged.get_input_embeddings().weight
    assert merged.config.tie_word_embeddings is True


def test_attention_of_torch_is_merged_with_the_layer_inside_it():
    """Peft merges its output projection along with it."""
    attention = nn.Sequential(nn.MultiheadAttention(64, 4, batch_first=True))
    bs.quantize(attention, "nf4")
    model = lora(attention, target_modules=["0"])
    x = INPUT.view(1, 8, 64)
    expected = model.base_model.model[0](x, x, x, need_weights=False)[0]
    merged = adapters.merge(model)
    assert type(merged[0]) is nn.MultiheadAttention
    assert relative_error(merged[0](x, x, x, need_weights=False)[0], expected) < 1e-6


# --- packed again --------------------------------------------------------------------------------


def test_a_packed_merge_is_the_exact_one_packed():
    """Bit for bit, and the report holds the model."""
    model = lora(net())
    exact = adapters.merge(copy.deepcopy(model))
    report = adapters.merge(model, exact=False)
    for layer, dense in zip(report.model, exact, strict=True):
        assert isinstance(layer.weight, quant.QuantizedTensor)
        assert torch.equal(layer.weight.dequantize(), quant.NF4().quantize(dense.weight).dequantize())


def test_the_report_measures_what_arrived_in_each_layer():
    """Recomputed here from the weights alone."""
    model = lora(net("ternary"))
    before = [layer.get_base_layer().weight.dequantize() for layer in model.base_model.model]
    exact = adapters.merge(copy.deepcopy(model))
    report = adapters.merge(model, exact=False)
    assert [layer.name for layer in report.layers] == ["0", "1"]
    for found, w, dense, packed in zip(report.layers, before, exact, report.model, strict=True):
        wanted, arrived = dense.weight - w, packed.weight.dequantize() - w
        assert found.size == pytest.approx(wanted.norm().item(), rel=1e-4)
        assert found.kept == pytest.approx(((arrived * wanted).sum() / wanted.square().sum()).item(), rel=1e-3)
        assert found.error == pytest.approx(((arrived - wanted).norm() / wanted.norm()).item(), rel=1e-3)


@pytest.mark.parametrize(
    ("scheme", "scale", "kept", "error"),
    [
        ("int8", 1.0, (0.99, 1.01), (0.0, 0.02)),
        ("int8", 0.1, (0.9, 1.1), (0.0, 0.5)),
        ("nf4", 1.0, (0.95, 1.05), (0.0, 0.2)),
        ("nf4", 0.1, (-0.2, 0.5), (0.9, 9.0)),
        ("ternary", 1.0, (0.4, 0.7), (0.4, 0.7)),
        ("ternary", 0.1, (-0.5, 0.5), (0.9, 99.0)),
    ],
)
def test_a_coarse_grid_loses_a_small_adapter_and_half_of_a_large_one_in_ternary(scheme, scale, kept, error):
    """Less than half a step rounds back; what is added moves the scales. The change of scale 0.1 is a few per cent of the weights."""
    report = adapters.merge(lora(net(scheme), scale), exact=False)
    assert kept[0] < report.kept < kept[1]
    assert error[0] <= report.error < error[1]


def test_a_lossy_merge_warns_and_a_fine_one_does_not():
    """In the report, which is what the caller asked for."""
    assert "WARNING" not in str(adapters.merge(lora(net("int8")), exact=False))
    text = str(adapters.merge(lora(net("ternary")), exact=False))
    assert text.splitlines()[-1] == (
        "WARNING: much of what the adapter does is gone. Packed weights move in steps, and a change of less than half a step "
        "rounds back to where it was. A ternary weight has three values and a scale that is computed anew, so about half of even a "
        "large change is lost, and a small one is outweighed by what packing again does to the base. Merge with `exact=True`, which unpacks the layers and loses nothing, or keep the adapter beside the "
        "packed model."
    )


def test_a_dense_layer_is_merged_and_not_listed():
    """It loses nothing."""
    base = net(scheme=None)
    bs.quantize(base, "int8", skip=["0"])
    report = adapters.merge(lora(base), exact=False)
    assert [layer.name for layer in report.layers] == ["1"]
    assert type(report.model[0].weight) is nn.Parameter


@pytest.mark.parametrize("scheme", ["nf4", "int8", "ternary"])
def test_an_adapter_that_changes_nothing_costs_nothing(scheme):
    """A fresh one: the packed weight stays, bit for bit. Packing a ternary weight again would shrink it."""
    base = net(scheme)
    before = state(base)
    report = adapters.merge(peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["0"])), exact=False)
    assert (report.kept, report.error) == (1.0, 0.0)
    assert same(state(report.model), before)


# --- refused, and nothing changed ----------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False])
def test_a_layer_that_refuses_leaves_all_layers_as_they_were(exact):
    """The first layer had been merged already when the second turned out to be damaged."""
    model = lora(net())
    with torch.no_grad():
        model.base_model.model[1].lora_B["default"].weight[0, 0] = torch.inf
    before, output = state(model), model.base_model.model[0](INPUT)
    with pytest.raises(adapters.MergeError) as caught:
        adapters.merge(model, exact=exact)
    assert str(caught.value) == (
        "The adapter 'default' cannot be merged into 1: NaNs detected in the merged weights. The adapter default seems to be "
        "broken. Nothing was changed."
    )
    assert (caught.value.layer, caught.value.adapter) == ("1", "default")
    assert same(state(model), before)
    assert torch.equal(model.base_model.model[0](INPUT), output)
    with torch.no_grad():  # repaired, it merges
        model.base_model.model[1].lora_B["default"].weight[0, 0] = 0.0
    expected = model(INPUT)
    assert relative_error(adapters.merge(model)(INPUT), expected) < 1e-6


class Small(quant.Int8):
    """A scheme of somebody else's that holds no weight beyond 1."""

    name = "small"

    def check(self, tensor: torch.Tensor) -> None:
        super().check(tensor)
        if tensor.numel() and tensor.abs().max() > 1:
            raise quant.QuantizationError("small holds weights up to 1.", scheme="small")


def test_a_scheme_that_cannot_hold_the_result_leaves_all_layers_as_they_were():
    """The scheme's own words, with the layer."""
    model = lora(net(Small()))
    fill(model.base_model.model[1], 5.0)
    before = state(model)
    with pytest.raises(adapters.MergeError) as caught:
        adapters.merge(model, exact=False)
    assert str(caught.value) == (
        "The adapter 'default' cannot be merged into 1: small holds weights up to 1. Nothing was changed."
    )
    assert isinstance(caught.value.__cause__, quant.QuantizationError)
    assert same(state(model), before)


def test_an_interrupted_merge_leaves_all_layers_as_they_were():
    """Ctrl-C in the second layer."""
    model = lora(net())

    def interrupted(adapter):
        raise KeyboardInterrupt

    model.base_model.model[1].get_delta_weight = interrupted
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        adapters.merge(model)
    assert same(state(model), before)


def test_what_peft_cannot_merge_is_told_with_the_layer():
    """Its bias has nowhere to go."""
    base = nn.Sequential(nn.Linear(64, 64, bias=False))
    bs.quantize(base, "nf4")
    with pytest.warns(UserWarning, match="has no bias"):
        model = lora(base, target_modules=["0"], lora_bias=True)
    with pytest.raises(adapters.MergeError) as caught:
        adapters.merge(model)
    assert str(caught.value) == (
        "The adapter 'default' cannot be merged into 0: Impossible to merge LoRA with `lora_bias=True` because the base layer has "
        "no bias. Nothing was changed."
    )


def test_an_adapter_that_peft_has_merged_already_is_refused():
    """The packed weights were rounded; merging exactly is not possible any more."""
    model = lora(net())
    model.merge_adapter()
    before = state(model)
    with pytest.raises(adapters.MergeError) as caught:
        adapters.merge(model)
    assert str(caught.value) == (
        "The adapter 'default' cannot be merged into 0: 'default' is merged there already. Nothing was changed. Unmerge with "
        "`model.unmerge_adapter()`; if the layer is packed, load the base model again, since its weights were rounded."
    )
    assert same(state(model), before)


def test_an_unknown_adapter_lists_the_known():
    """And the nearest."""
    with pytest.raises(adapters.AdapterNotFoundError) as caught:
        adapters.merge(lora(net()), adapter="defualt")
    assert str(caught.value) == (
        "No adapter is called 'defualt'. Did you mean 'default'? Known: default. "
        "Load it first with `model.load_adapter(folder, adapter_name=...)`."
    )


def test_a_model_without_peft_is_refused():
    """By its class."""
    with pytest.raises(InvalidConfigError) as caught:
        adapters.merge(net())
    assert str(caught.value) == "`model` (a Sequential) must be a PeftModel, as `get_peft_model` returns it."
