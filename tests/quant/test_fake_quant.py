"""Fake quantization has the values of the real one and of transformers', bit for bit, and the gradient of the identity."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.quant import Ternary
from bedstone.quant.fake_quant import fake_quant_activation, fake_quant_ternary

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
SCHEMES = st.one_of(
    st.just(Ternary()), st.just(Ternary("row")), st.builds(Ternary, st.just("block"), st.integers(1, 40))
)


@st.composite
def matrices(draw):
    """Gaussian, constant, zero, tiny and large ones, with rows that are cut from wider ones."""
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 70))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.randn(rows, columns + 3, generator=generator)[:, :columns]
    kind = draw(st.sampled_from(["gaussian", "constant", "one row", "halves"]))
    if kind == "constant":
        values = torch.full_like(values, -0.3)
    elif kind == "one row":
        values = values * (torch.arange(rows) == 0).unsqueeze(1)
    elif kind == "halves":  # ties of the rounding
        values = (values * 4).round() / 2
    return (values * draw(st.sampled_from([0.0, 1e-7, 0.02, 1.0, 300.0]))).to(draw(st.sampled_from(FLOATS)))


@given(matrices())
def test_trits_are_those_of_transformers_online_quantizer(bitnet_module, weight):
    """One scale a tensor, every float dtype, bit for bit."""
    with torch.compiler.set_stance("force_eager"):
        assert torch.equal(fake_quant_ternary(weight, Ternary()), bitnet_module.WeightQuant.apply(weight))


@given(matrices())
def test_activations_are_those_of_transformers(bitnet_module, x):
    """One scale a token, every float dtype, bit for bit."""
    with torch.compiler.set_stance("force_eager"):
        assert torch.equal(fake_quant_activation(x), bitnet_module.ActQuant.apply(x))


@given(matrices(), SCHEMES)
def test_a_weight_is_what_the_scheme_packs_and_unpacks(weight, scheme):
    """Each granularity, blocks that do not divide the row too, bit for bit."""
    assert torch.equal(fake_quant_ternary(weight, scheme), scheme.quantize(weight).dequantize())


@given(matrices(), st.integers(2, 8))
def test_an_activation_moves_by_half_a_step_at_most(x, bits):
    """And a token holds no more values than codes: 2^bits - 1, since the largest magnitude is a positive code's."""
    x = x.float()
    step = x.abs().amax(-1, keepdim=True).clamp(min=1e-5) / (2 ** (bits - 1) - 1)
    rounded = fake_quant_activation(x, bits)
    assert ((rounded - x).abs() <= step / 2 * (1 + 1e-5)).all()  # 1e-5: a code up to 127 in float32
    assert all(len(token.unique()) <= 2**bits - 1 for token in rounded)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("round_", [lambda v, s: fake_quant_ternary(v, Ternary("row"), s), lambda v, s: fake_quant_activation(v, 8, s)])  # fmt: skip
def test_the_gradient_is_the_identity(round_, strength):
    """Also where the number is far outside of -1 ... 1 scales, and at every strength."""
    x = (torch.randn(4, 33) * 5).requires_grad_()
    upstream = torch.randn(4, 33)
    round_(x, strength).backward(upstream)
    assert torch.equal(x.grad, upstream)


def test_strength_mixes_in_the_number_that_was_not_rounded():
    """0 is the number, 1 the rounded one exactly, and between them lies the straight line."""
    w = torch.randn(5, 20)
    full = fake_quant_ternary(w, Ternary())
    assert torch.equal(fake_quant_ternary(w, Ternary(), 0.0), w)
    torch.testing.assert_close(fake_quant_ternary(w, Ternary(), 0.25), w + 0.25 * (full - w))
    x = torch.randn(5, 20)
    assert torch.equal(fake_quant_activation(x, 8, 0.0), x)
    torch.testing.assert_close(fake_quant_activation(x, 4, 0.25), x + 0.25 * (fake_quant_activation(x, 4) - x))


@pytest.mark.parametrize("dtype", FLOATS)
def test_shape_and_dtype_are_kept_and_the_argument_is_not_touched(dtype):
    """The rounding is in float32; only its result has the dtype of the argument."""
    w = torch.randn(3, 4, 7).to(dtype)
    before = w.clone()
    for rounded in (fake_quant_ternary(w, Ternary("block", 4)), fake_quant_activation(w)):
        assert (rounded.shape, rounded.dtype) == (w.shape, dtype)
        assert torch.equal(w, before)


def test_nothing_is_rounded_to_nothing():
    """A batch without tokens, and a weight without rows."""
    assert fake_quant_activation(torch.empty(0, 4)).shape == (0, 4)
    assert fake_quant_ternary(torch.empty(0, 4), Ternary()).shape == (0, 4)


def test_transforms_of_torch_func_pass():
    """Gradients of each sample, and several weights at once, equal those one by one."""
    w, x, scheme = torch.randn(3, 8, 12), torch.randn(5, 12), Ternary("block", 5)

    def loss(weight, token):
        rounded = torch.nn.functional.linear(fake_quant_activation(token), fake_quant_ternary(weight, scheme))
        return rounded.square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(w[0], x)
    torch.testing.assert_close(each[2], torch.func.grad(loss)(w[0], x[2]))
    several = torch.func.vmap(lambda weight: fake_quant_ternary(weight, scheme))(w)
    assert torch.equal(several[1], fake_quant_ternary(w[1], scheme))
