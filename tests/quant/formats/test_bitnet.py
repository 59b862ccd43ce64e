"""transformers' BitNet modules load what is exported here and compute the same, in both conventions; the way back is exact."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bedstone as bs
from bedstone import quant
from bedstone.core.errors import UnknownNameError
from bedstone.kernels import layouts
from bedstone.quant.formats import WeightFormatError, from_bitnet, to_bitnet
from bedstone.repro.tensor_file import write_tensors
from bedstone.testing import tiny_llama

# transformers' module decorates with torch.compile, whose import uses what torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
CLASSES = ["bitlinear", "autobitlinear"]


@pytest.fixture(autouse=True)
def _without_compiling():
    """Transformers decorates its BitNet functions with `torch.compile`; what they compute is the same without."""
    with torch.compiler.set_stance("force_eager"):
        yield


def _weight(rows=8, columns=48, dtype=torch.float32, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).mul(0.02).to(dtype)


def _module(linear_class, tensors, rows, columns):
    """The module of transformers with our tensors, as its loading puts them there."""
    from transformers.integrations.bitnet import AutoBitLinear, BitLinear, unpack_weights

    if linear_class == "bitlinear":
        module = BitLinear(columns, rows, bias=False, dtype=torch.float32)
    else:
        module = AutoBitLinear(columns, rows, bias=False, dtype=torch.float32)
        tensors = tensors | {"weight": unpack_weights(tensors["weight"], dtype=torch.float32)}
    module.load_state_dict(tensors)
    return module


@pytest.mark.parametrize("linear_class", CLASSES)
def test_their_module_computes_the_same(linear_class):
    """The output differs from ours by no more than the rounding of the input to int8."""
    packed = bs.quantize(_weight(), "ternary")
    module = _module(linear_class, to_bitnet({"weight": packed}, linear_class=linear_class), 8, 48)
    x = torch.randn(5, 48)
    exact = x @ packed.dequantize().T
    rounding = x.abs().amax(-1, keepdim=True) / 127 / 2 * packed.dequantize().abs().sum(-1)
    assert bool(((module(x) - exact).abs() <= rounding + 1e-6).all())
    assert exact.abs().max() > 20 * rounding.max() / 10  # the bound would show a wrong scale


@pytest.mark.parametrize("linear_class", CLASSES)
def test_an_int8_input_gives_equal_outputs(linear_class):
    """Where the input is integers up to 127 their rounding changes nothing, and the outputs agree to float32."""
    packed = bs.quantize(_weight(), "ternary")
    module = _module(linear_class, to_bitnet({"weight": packed}, linear_class=linear_class), 8, 48)
    x = torch.randint(-126, 127, (5, 48)).float()
    x[:, 0] = 127
    torch.testing.assert_close(module(x), x @ packed.dequantize().T, rtol=1e-5, atol=1e-5)


def test_the_other_convention_is_another_model():
    """Taking the stored scale for its reciprocal would be wrong by orders of magnitude, so the convention is asked for."""
    packed = bs.quantize(_weight(), "ternary")
    wrong = from_bitnet(to_bitnet({"weight": packed}, linear_class="bitlinear"), linear_class="autobitlinear")["weight"]
    assert (wrong.dequantize().abs().max() / packed.dequantize().abs().max()).item() > 1000


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 12).map(lambda n: 4 * n), columns=st.integers(1, 300), seed=st.integers(0, 2**16))
def test_the_bytes_are_those_of_pack_weights(rows, columns, seed):
    """Packed by transformers and by us, the same bytes; unpacked by transformers, our trits."""
    from transformers.integrations.bitnet import pack_weights, unpack_weights

    codes = torch.randint(0, 3, (rows, columns), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    ours = layouts.pack_trit_rows(codes)
    assert torch.equal(ours, pack_weights(codes.to(torch.int8) - 1))
    assert torch.equal(unpack_weights(ours, torch.float32) + 1, codes.float())
    assert torch.equal(layouts.unpack_trit_rows(ours), codes)


@pytest.mark.parametrize("linear_class", CLASSES)
def test_the_way_back_has_the_same_trits_and_scale(linear_class):
    """Trits exactly; the scale exactly where it is stored itself, to one unit in the last place where its reciprocal is."""
    packed = bs.quantize(_weight(dtype=torch.bfloat16), "ternary")
    state = to_bitnet({"a.weight": packed, "a.bias": torch.ones(8)}, linear_class=linear_class)
    assert list(state) == ["a.weight", "a.weight_scale", "a.bias"]
    back = from_bitnet(state, linear_class=linear_class, dtype=torch.bfloat16)
    assert list(back) == ["a.weight", "a.bias"]
    weight = back["a.weight"]
    assert (weight.scheme, weight.shape, weight.dtype) == (packed.scheme, packed.shape, packed.dtype)
    assert torch.equal(weight.parts["packed"], packed.parts["packed"])
    if linear_class == "autobitlinear":
        assert torch.equal(weight.parts["scale"], packed.parts["scale"])
    torch.testing.assert_close(weight.parts["scale"], packed.parts["scale"], rtol=1.2e-7, atol=0)


def test_trits_as_floating_numbers_are_read():
    """An `autobitlinear` model that transformers saves again has them unpacked."""
    packed = bs.quantize(_weight(), "ternary")
    module = _module("autobitlinear", to_bitnet({"weight": packed}, linear_class="autobitlinear"), 8, 48)
    back = from_bitnet(module.state_dict(), linear_class="autobitlinear")["weight"]
    assert torch.equal(back.dequantize(), packed.dequantize())


@pytest.mark.parametrize("linear_class", CLASSES)
def test_transformers_loads_a_whole_model(tmp_path, linear_class):
    """A folder of our export opens with `from_pretrained`; its logits are those of our packed model up to int8 activations."""
    from transformers import AutoModelForCausalLM

    model = tiny_llama()
    bs.quantize(model, "ternary")
    model.config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {
        "quantization_config": {"quant_method": "bitnet", "linear_class": linear_class, "quantization_mode": "offline"},
        "dtype": "float32",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    write_tensors(tmp_path / "model.safetensors", to_bitnet(state, linear_class=linear_class), {"format": "pt"})
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(theirs.model.layers[0].mlp.up_proj).__name__.lower() == linear_class
    ids = torch.arange(40).view(1, -1)
    with torch.no_grad():
        ours, other = model(ids).logits, theirs(ids).logits
    assert torch.linalg.vector_norm(other - ours) / torch.linalg.vector_norm(ours) < 0.02


# --- what is refused ---------------------------------------------------------------------------------


def test_rows_that_do_not_divide_are_refused():
    """The layer and the rule are told; transformers would unpack more rows than there are."""
    with pytest.raises(WeightFormatError) as caught:
        to_bitnet({"a.weight": bs.quantize(torch.ones(6, 8), "ternary")})
    assert str(caught.value) == (
        "'a.weight' has 6 rows; BitNet packs 4 rows a byte, so their number must be a multiple of 4, else rows would be added. "
        "Leave this layer dense."
    )
    assert (caught.value.weight, caught.value.rows) == ("a.weight", 6)


@pytest.mark.parametrize("scheme", [quant.NF4(), quant.Int8(), quant.Ternary("row"), quant.Ternary("block")], ids=str)
def test_other_schemes_and_granularities_are_refused(scheme):
    """One scale a tensor is all that the format has."""
    with pytest.raises(WeightFormatError, match="BitNet has no form for 'weight', which is packed as"):
        to_bitnet({"weight": scheme.quantize(torch.ones(8, 64))})


def test_an_unknown_linear_class_is_refused():
    """The known ones are listed."""
    with pytest.raises(UnknownNameError, match="Did you mean 'bitlinear'"):
        to_bitnet({}, linear_class="bitlinaer")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"weight_scale": torch.ones(2)},
            "The scale of 'weight' is torch.float32 (2,); it must be one floating number.",
        ),
        ({"weight_scale": torch.zeros(1)}, "The scale of 'weight' is 0.0; it must be above 0 and finite."),
        (
            {"weight_scale": torch.tensor([float("nan")])},
            "The scale of 'weight' is nan; it must be above 0 and finite.",
        ),
        ({"weight": torch.full((2, 6), 3, dtype=torch.uint8)}, "'weight' holds a code of 3;"),
        ({"weight": torch.ones(12, dtype=torch.uint8)}, "'weight' has shape (12,); a BitNet weight is a matrix."),
        ({"weight": torch.full((8, 6), 0.5)}, "'weight' is torch.float32 and holds values other than -1, 0 and 1."),
        ({"weight_scale": None}, "'weight_scale' is missing, which the packed weight 'weight' needs."),
    ],
)
def test_a_damaged_checkpoint_is_refused(changes, said):
    """What was found is told."""
    state = to_bitnet({"weight": bs.quantize(torch.ones(8, 6), "ternary")}) | changes
    with pytest.raises(WeightFormatError) as caught:
        from_bitnet({name: tensor for name, tensor in state.items() if tensor is not None})
    assert str(caught.value).startswith(said)
