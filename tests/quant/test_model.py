"""A model is packed in place, keeps its classes and its ties, says what stays dense and why, and is left alone when it cannot be packed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bedstone as bs
from bedstone import quant
from bedstone.core.errors import CoreError, InvalidConfigError, UnknownNameError
from bedstone.quant import QuantizedTensor
from bedstone.testing import tiny_llama


def linears(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def a_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))


def test_every_linear_layer_keeps_its_class_and_is_packed(scheme):
    """Frozen; biases and everything else untouched."""
    model = a_model()
    bias, dense = model[0].bias, {name: layer.weight.detach().clone() for name, layer in linears(model).items()}
    report = bs.quantize(model, scheme)
    for name, layer in linears(model).items():
        assert type(layer) is nn.Linear
        assert not layer.weight.requires_grad
        assert torch.equal(layer.weight.dequantize(), scheme.quantize(dense[name]).dequantize())
    assert model[0].bias is bias
    assert bias.requires_grad
    assert (report.scheme, [layer.name for layer in report.packed], report.skipped) == (scheme, ["0", "2"], ())


def test_the_report_says_bytes_and_errors():
    """Errors only when asked, since that unpacks every weight once."""
    model = a_model()
    report = bs.quantize(model, "int8", measure=True)
    assert [(layer.shape, layer.dense_bytes, layer.packed_bytes) for layer in report.packed] == [
        ((32, 64), 8192, 2048 + 128),
        ((8, 32), 1024, 256 + 32),
    ]
    assert (report.dense_bytes, report.packed_bytes) == (9216, 2464)
    assert all(0.002 < layer.error < 0.01 for layer in report.packed)
    assert str(report) == "int8: 2 layers packed, 9,216 bytes became 2,464."
    assert bs.quantize(a_model(), "int8").packed[0].error is None


@pytest.mark.parametrize(
    ("skip", "dense"),
    [
        (["lm_head"], {"lm_head"}),
        (["model.layers.1.mlp"], {f"model.layers.1.mlp.{n}_proj" for n in ("gate", "up", "down")}),
        (["layers.0.self_attn.q_proj"], {"model.layers.0.self_attn.q_proj"}),
        (["up_proj", "down_proj"], {f"model.layers.{i}.mlp.{n}_proj" for i in (0, 1) for n in ("up", "down")}),
    ],
)
def test_skips_by_whole_name_by_its_end_and_by_the_module_around(skip, dense):
    """Of a Llama whose embedding is its own."""
    model = tiny_llama(tie_word_embeddings=False)
    report = bs.quantize(model, "nf4", skip=skip)
    assert {name for name, reason in report.skipped if reason == "skipped by name"} == dense
    assert {n for n, layer in linears(model).items() if not isinstance(layer.weight, QuantizedTensor)} == dense


def test_a_name_that_no_layer_has_is_refused_before_anything_is_packed():
    """Otherwise a typing error would pack the head."""
    model = tiny_llama(tie_word_embeddings=False)
    with pytest.raises(UnknownNameError) as caught:
        bs.quantize(model, "nf4", skip=["lm_haed"])
    assert str(caught.value) == (
        "No linear layer of the model is called 'lm_haed'. Did you mean 'lm_head'? "
        "Known: down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj. Change `skip`."
    )
    assert not any(isinstance(layer.weight, QuantizedTensor) for layer in linears(model).values())


def test_a_head_tied_to_the_embedding_stays_dense_and_is_told():
    """An embedding is read by row; a packed copy would untie them."""
    model = tiny_llama()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    report = bs.quantize(model, "nf4")
    assert report.skipped == (("lm_head", "its weight is that of model.embed_tokens, which is read by row"),)
    assert str(report).endswith("lm_head stays dense: its weight is that of model.embed_tokens, which is read by row.")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.requires_grad


def test_an_untied_head_is_packed_and_the_model_runs():
    """Forward, backward into the embedding, and generation."""
    model = tiny_llama(tie_word_embeddings=False)
    report = bs.quantize(model, "int8")
    assert not report.skipped
    tokens = torch.arange(8).view(1, 8)
    model(tokens, labels=tokens).loss.backward()
    assert model.model.embed_tokens.weight.grad.any()
    assert model.generate(tokens, max_new_tokens=3, do_sample=False, pad_token_id=0).shape == (1, 11)


def test_layers_that_share_a_weight_go_on_sharing_it():
    """Packed once, counted once."""
    model = nn.ModuleList([nn.Linear(16, 16), nn.Linear(16, 16)])
    model[1].weight = model[0].weight
    report = bs.quantize(model, "nf4")
    assert model[0].weight is model[1].weight
    assert len(report.packed) == 1


def test_what_has_no_weight_to_pack_is_told():
    """Packed already, computed by a parametrization, not there before the first batch."""
    model = nn.Sequential(
        nn.Linear(8, 8), nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.LazyLinear(8), nn.Linear(8, 8)
    )
    bs.quantize(model[0], "fp8")
    report = bs.quantize(model, "int8")
    assert report.skipped == (
        ("0", "packed already, as fp8"),
        ("1", "its weight is computed by a parametrization"),
        ("2", "it has no weight before its first batch"),
    )
    assert model(torch.randn(2, 8)).shape == (2, 8)


def test_a_single_layer_and_a_model_without_any():
    """A layer's own name is empty, so its weight names it."""
    assert bs.quantize(nn.Linear(8, 8), "int8").packed[0].name == "weight"
    assert str(bs.quantize(nn.ReLU(), "int8")) == "int8: 0 layers packed, 0 bytes became 0."


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda w: w[1].fill_(float("nan")), "2: nf4 holds finite weights, but the one at (1, 0) is nan."),
        (lambda w: w[3].fill_(float("inf")), "2: nf4 holds finite weights, but the one at (3, 0) is inf."),
    ],
)
def test_a_model_that_cannot_be_packed_is_left_as_it_was(spoil, said):
    """The layer is named; the layers before it are dense, the same objects."""
    model = a_model()
    with torch.no_grad():
        spoil(model[2].weight)
    before = dict(model.named_parameters())
    with pytest.raises(quant.NonFiniteWeightError) as caught:
        bs.quantize(model, "nf4")
    assert str(caught.value).startswith(said)
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_a_weight_whose_scale_overflows_is_found_before_anything_is_replaced():
    """The mean of huge numbers is infinite."""
    model = a_model()
    with torch.no_grad():
        model[2].weight.fill_(3e38)
    with pytest.raises(quant.QuantizationError, match=r"^2: ternary cannot hold this weight"):
        bs.quantize(model, "ternary")
    assert type(model[0].weight) is nn.Parameter
    assert len(bs.quantize(model, "int8").packed) == 2


def test_integer_weights_are_named_too():
    """A model that another tool has packed."""
    model = a_model()
    model[0].weight = nn.Parameter(torch.ones(32, 64, dtype=torch.int8), requires_grad=False)
    with pytest.raises(CoreError, match=r"^0: fp8 holds floating-point weights, not torch\.int8\.$"):
        bs.quantize(model, "fp8")


def test_what_is_neither_tensor_nor_module_is_refused():
    """A path, for instance."""
    with pytest.raises(InvalidConfigError) as caught:
        bs.quantize("model.safetensors", "nf4")
    assert str(caught.value) == "`target` (a str) must be a tensor or a module."


def test_the_error_of_a_weight_of_zeros():
    """0 when it is exact, 1 when it is not."""
    assert quant.model.relative_error(torch.zeros(2), torch.zeros(2)) == 0
    assert quant.model.relative_error(torch.ones(2), torch.zeros(2)) == 1


# --- and back ------------------------------------------------------------------------------------


def test_dequantize_makes_a_model_dense_again(scheme):
    """Same values, ties kept, any dtype."""
    model = nn.ModuleList([nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)])
    model[1].weight = model[0].weight
    bs.quantize(model, scheme)
    packed = [layer.weight.dequantize() for layer in model]
    assert quant.dequantize(model) == ["0.weight", "1.weight", "2.weight"]
    assert all(type(layer.weight) is nn.Parameter for layer in model)
    assert all(torch.equal(layer.weight, dense) for layer, dense in zip(model, packed, strict=True))
    assert model[0].weight is model[1].weight
    assert quant.dequantize(model) == []
    bs.quantize(model, scheme)
    quant.dequantize(model, dtype=torch.bfloat16)
    assert model[2].weight.dtype is torch.bfloat16


# --- modules that use a weight in their own way --------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_multi_head_attention_and_an_encoder_layer_still_run(scheme, training):
    """They read `out_proj.weight` themselves, and have fast paths of their own in evaluation."""
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True).train(training)
    x = torch.randn(2, 5, 32)
    report = bs.quantize(model, scheme)
    assert [layer.name for layer in report.packed] == ["self_attn.out_proj", "linear1", "linear2"]
    with torch.set_grad_enabled(training):
        out = model(x)
    quant.dequantize(model)
    assert torch.allclose(out, model(x), atol=1e-4)
    attention = nn.MultiheadAttention(32, 4, batch_first=True).train(training)
    bs.quantize(attention, scheme)
    assert attention(x, x, x)[0].shape == (2, 5, 32)
