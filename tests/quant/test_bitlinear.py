"""A BitLinear computes what transformers' online BitNet layer computes, learns through the rounding, and packs without a change."""

from __future__ import annotations

import copy
import io
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import bedstone as bs
from bedstone import quant
from bedstone.core.errors import InvalidConfigError
from bedstone.quant import Ternary
from bedstone.quant.bitlinear import BitLinear, BitLinearConfig, master_of
from bedstone.quant.bitlinear_model import pack, set_strength, unpack
from bedstone.quant.fake_quant import fake_quant_activation, fake_quant_ternary

SCHEMES = [Ternary(), Ternary("row"), Ternary("block", 32)]
SCHEME_NAMES = ["tensor", "row", "block"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def layer_with(**options) -> BitLinear:
    """A layer of an odd shape, so that trits and blocks do not divide it."""
    return BitLinear(150, 21, config=BitLinearConfig(**options))


# --- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [{"scheme": Ternary("row")}, {"scheme": Ternary("block", 32)}, {"activation_bits": 4}, {"activation_bits": None}, {"norm": True}],
    ids=str,
)  # fmt: skip
def test_each_option_changes_the_output(changed):
    """No field of the configuration is only read and forgotten."""
    plain, other = layer_with(), layer_with(**changed)
    other.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(3, 150) * 5
    assert not torch.allclose(plain(x), other(x), atol=1e-4)


def test_the_options_inside_options_change_the_output():
    """The size of a block, and the epsilon of the norm."""
    x = torch.randn(3, 150)
    for options, field, values in (
        ({"norm": True}, "norm_eps", (1e-6, 1.0)),
        ({"scheme": Ternary("block", 32)}, "scheme", (Ternary("block", 32), Ternary("block", 16))),
    ):
        layer = layer_with(**options)
        outputs = []
        for value in values:
            made = BitLinear(150, 21, config=replace(layer.config, **{field: value}))
            made.load_state_dict(layer.state_dict())
            outputs.append(made(x))
        assert not torch.allclose(*outputs, atol=1e-4)


def test_options_that_cannot_be_are_refused_all_at_once():
    """Each with its rule and its value."""
    with pytest.raises(InvalidConfigError) as caught:
        BitLinearConfig(scheme="ternary", activation_bits=1, norm="yes", norm_eps=0.0)
    assert str(caught.value) == (
        "BitLinearConfig has 4 problems:\n"
        "  `scheme` (='ternary') must be a Ternary scheme.\n"
        "  `activation_bits` (=1) must be a whole number from 2 to 8, or None.\n"
        "  `norm` (='yes') must be True or False.\n"
        "  `norm_eps` (=0.0) must be a finite number above 0."
    )
    for value in (True, 8.0, 9):
        with pytest.raises(InvalidConfigError, match="activation_bits"):
            BitLinearConfig(activation_bits=value)
    for value in (float("nan"), float("inf"), -1, "small", True):
        with pytest.raises(InvalidConfigError, match="norm_eps"):
            BitLinearConfig(norm_eps=value)


def test_the_printed_layer_says_how_it_rounds():
    """State, granularity, bits, and a warm-up that is not over."""
    layer = BitLinear(4, 2, bias=False, config=BitLinearConfig(Ternary("row"), activation_bits=None))
    set_strength(layer, 0.5)
    assert repr(layer) == (
        "BitLinear(in_features=4, out_features=2, bias=False, master weight, ternary a row, activations as they are, strength 0.5)"
    )
    set_strength(layer, 1)
    pack(layer)
    assert "final weight, ternary a row, activations as they are)" in repr(layer)


# --- forward and backward --------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_it_is_transformers_online_layer(bitnet, bias, norm):
    """Output and gradients are equal; with a norm up to its float rounding, since theirs is written out and ours is torch's own."""
    theirs = bitnet.AutoBitLinear(150, 21, bias=bias, online_quant=True, use_rms_norm=norm)
    ours = BitLinear(150, 21, bias=bias, config=BitLinearConfig(norm=norm))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 5, 150)
    gradients = []
    for layer in (theirs, ours):
        token = x.clone().requires_grad_()
        out = layer(token)
        out.square().sum().backward()
        gradients.append([out, token.grad, *(p.grad for _, p in sorted(layer.named_parameters()))])
    # A code of the activations flips where the norm's last bit decides, which moves an output by a step: 1/127 of a token.
    tolerance = {"rtol": 0, "atol": 0} if not norm else {"rtol": 2e-2, "atol": 2e-2}
    for their, our in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, **tolerance)


@pytest.mark.parametrize("scheme", SCHEMES, ids=SCHEME_NAMES)
def test_gradients_are_those_of_a_linear_layer_with_rounded_operands(scheme):
    """Straight through: what reaches weight, input and bias does not know about the rounding."""
    layer = layer_with(scheme=scheme)
    x = torch.randn(7, 150, requires_grad=True)
    upstream = torch.randn(7, 21)
    layer(x).backward(upstream)
    operands = [fake_quant_activation(x), fake_quant_ternary(layer.weight, scheme), layer.bias]
    leaves = [operand.detach().requires_grad_() for operand in operands]
    functional.linear(*leaves).backward(upstream)
    for got, expected in zip((x, layer.weight, layer.bias), leaves, strict=True):
        assert torch.equal(got.grad, expected.grad)


def test_at_strength_zero_it_is_a_plain_linear_layer():
    """So a warm-up starts where the dense model is; and it ends exactly at the ternary one."""
    layer = layer_with()
    x = torch.randn(3, 150)
    ternary = layer(x)
    set_strength(layer, 0)
    assert torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))
    set_strength(layer, 0.5)
    assert not torch.allclose(layer(x), ternary)
    set_strength(layer, 1)
    assert torch.equal(layer(x), ternary)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_output_has_the_dtype_of_the_input(packed, dtype):
    """Whatever the dtype of the master weight is; gradients reach a float32 master in float32."""
    layer = layer_with(norm=True)
    if packed:
        pack(layer)
    x = torch.randn(3, 150).to(dtype).requires_grad_()
    out = layer(x)
    out.float().sum().backward()
    assert out.dtype is x.grad.dtype is dtype
    assert packed or layer.weight.grad.dtype is torch.float32


@pytest.mark.parametrize("packed", [False, True])
def test_autocast_means_what_it_means_for_a_linear_layer(packed):
    """A product in bfloat16, whatever comes in."""
    layer = layer_with()
    if packed:
        pack(layer)
    x = torch.randn(3, 150)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype is torch.bfloat16
    # Both operands and the output are rounded to 8 bits of mantissa, 2^-9 relative each, in sums of 150 products.
    torch.testing.assert_close(out.float(), layer(x), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("packed", [False, True])
def test_it_compiles_as_one_graph(packed):
    """Forward and backward equal those without the compiler."""
    layer = layer_with(norm=True, scheme=Ternary("block", 32))
    if packed:
        pack(layer)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 150)
    results = []
    for run in (layer, compiled):
        token = x.clone().requires_grad_()
        layer.zero_grad()
        out = run(token)
        out.square().sum().backward()
        results.append([out, token.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)])
    for plain, graph in zip(*results, strict=True):
        torch.testing.assert_close(graph, plain)


def test_a_warm_up_does_not_compile_at_every_step():
    """The strength becomes an input of the graph, not a constant in it."""
    layer = layer_with()
    graphs = []

    def count(module, _inputs):
        graphs.append(module)
        return module.forward

    compiled = torch.compile(layer, fullgraph=True, backend=count)
    x = torch.randn(3, 150)
    for step in range(1, 10):
        set_strength(layer, step / 10)
        torch.testing.assert_close(compiled(x), layer(x))
    assert len(graphs) <= 3


def test_gradients_of_each_sample_come_from_torch_func():
    """As for a plain linear layer: their sum is the gradient of the batch."""
    layer = layer_with()
    x = torch.randn(4, 150)

    def loss(parameters, token):
        return torch.func.functional_call(layer, parameters, (token,)).square().sum()

    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    layer(x).square().sum().backward()
    torch.testing.assert_close(each["weight"].sum(0), layer.weight.grad)


def test_it_learns_a_ternary_map():
    """From a random start the trits become those of the teacher, which no weight could by rounding with a gradient of 0."""
    teacher = torch.randint(-1, 2, (4, 32)).float() * 0.1
    layer = BitLinear(32, 4, bias=False)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    x = torch.randn(256, 32)
    losses = []
    for _ in range(150):
        loss = functional.mse_loss(layer(x), x @ teacher.T)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 20
    assert (layer.rounded_weight().sign() == teacher.sign()).float().mean() > 0.95


# --- packed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES, ids=SCHEME_NAMES)
@pytest.mark.parametrize("norm", [True, False])
def test_packed_it_computes_what_it_computed_in_training(scheme, norm):
    """The operands are the same numbers; only the order of the additions may differ, within float32's rounding of 150 products."""
    layer = layer_with(scheme=scheme, norm=norm)
    x = torch.randn(2, 5, 150)
    before, weight = layer(x), layer.rounded_weight().detach()
    pack(layer)
    assert torch.equal(layer.weight.dequantize(), weight)
    torch.testing.assert_close(layer(x), before, rtol=1e-5, atol=1e-5)
    assert not layer.weight.requires_grad
    assert not layer.is_master


def test_with_its_activations_as_they_are_it_still_is_within_int8_rounding():
    """Half a step of each activation, times the weight it meets: what a product of float activations may differ by."""
    layer = layer_with()
    pack(layer)
    x = torch.randn(5, 150)
    exact = functional.linear(x, layer.weight.dequantize(), layer.bias)
    step = x.abs().amax(-1, keepdim=True) / 127
    bound = step / 2 * layer.weight.dequantize().abs().sum(1)
    difference = (layer(x) - exact).abs()
    assert (difference <= bound * 1.001).all()
    assert difference.max() > 0


def test_made_dense_again_it_still_computes_the_same():
    """Its weight is final: rounding dense trits a second time would give them another scale."""
    layer = layer_with()
    pack(layer)
    x = torch.randn(5, 150)
    before = layer(x)
    quant.dequantize(layer)
    assert type(layer.weight) is torch.nn.Parameter
    torch.testing.assert_close(layer(x), before, rtol=1e-5, atol=1e-5)


def test_a_weight_packed_by_quantize_is_final_too():
    """`bs.quantize` of a model does what `pack` does, where the scheme is the layer's."""
    layer, other = layer_with(), layer_with()
    other.load_state_dict(layer.state_dict())
    bs.quantize(layer, Ternary())
    pack(other)
    x = torch.randn(5, 150)
    assert torch.equal(layer(x), other(x))


@pytest.mark.parametrize("scheme", SCHEMES, ids=SCHEME_NAMES)
def test_unpacked_it_has_the_same_trits_and_learns_on(scheme):
    """The new master weight rounds to the trits, and to the scale within the rounding of a float32 mean."""
    layer = layer_with(scheme=scheme)
    with torch.no_grad():
        layer.weight[0] = 0.0  # a row without a trit, whose scale no stretching can bring back
    pack(layer)
    before, x = layer.weight.dequantize(), torch.randn(5, 150)
    out = layer(x)
    assert unpack(layer) == ["weight"]
    assert torch.equal(layer.rounded_weight().sign(), before.sign())
    torch.testing.assert_close(layer.rounded_weight(), before, rtol=1e-5, atol=0)
    torch.testing.assert_close(layer(x), out, rtol=1e-5, atol=1e-5)
    layer(x).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_a_master_weight_is_not_made_for_other_scales():
    """Rounded over a row, trits that were packed over the tensor would be others."""
    packed = Ternary().quantize(torch.randn(4, 8))
    with pytest.raises(quant.QuantizationError) as caught:
        master_of(packed, Ternary("row"), "up.weight")
    assert str(caught.value) == (
        "up.weight is packed by Ternary(granularity='tensor', block_size=64), but its layer rounds by "
        "Ternary(granularity='row', block_size=64), which would give other trits. Make the layer with the scheme of the weight."
    )
    assert master_of(packed, Ternary(block_size=8)).shape == (4, 8)  # no blocks, so their size does not matter


# --- copies and files ------------------------------------------------------------------------------


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("source", ["master", "packed"])
@pytest.mark.parametrize("target", ["master", "packed"])
def test_a_state_dict_of_either_kind_loads_into_a_layer_of_either_kind(source, target, assign):
    """And the layer then computes what the other one computed."""
    giver, taker = layer_with(norm=True), layer_with(norm=True)
    if source == "packed":
        pack(giver)
    if target == "packed":
        pack(taker)
    state = giver.state_dict()
    taker.load_state_dict(state, assign=assign)
    if assign and target == "packed" and source == "master":  # torch's own rule: what is assigned is taken as it is
        assert torch.equal(taker.weight, giver.weight)
        return
    x = torch.randn(3, 150)
    torch.testing.assert_close(taker(x), giver(x), rtol=1e-5, atol=1e-5)
    assert isinstance(state["weight"], quant.QuantizedTensor) == (source == "packed")  # the caller's is not touched


@pytest.mark.parametrize("packed", [False, True])
def test_a_copy_is_its_own_layer(packed):
    """Same state, no shared memory."""
    layer = layer_with()
    if packed:
        pack(layer)
    x = torch.randn(3, 150)
    copied = copy.deepcopy(layer)
    assert torch.equal(copied(x), layer(x))
    with torch.no_grad():
        copied.weight.zero_()
    assert not torch.equal(copied(x), layer(x))
    assert copied.is_master is not packed


@pytest.mark.parametrize("packed", [False, True])
def test_torch_load_needs_no_trust(packed):
    """`weights_only=True`, which runs no code of the file."""
    layer, other = layer_with(), layer_with()
    if packed:
        pack(layer)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(3, 150)
    torch.testing.assert_close(other(x), layer(x), rtol=1e-5, atol=1e-5)
