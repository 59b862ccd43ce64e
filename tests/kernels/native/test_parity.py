"""The compiled CPU library gives the bits of the plain torch path, with every instruction set that this CPU has; sums up to rounding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.kernels import eightbit, fourbit, native, ternary

pytestmark = pytest.mark.skipif(not native.isas(), reason=native.status().reason or "-")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SCALES = (1.0, 0.02, 1e-30, 1e-41, 0.0)
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


@pytest.fixture(params=native.isas())
def isa(request):
    """Each instruction set in turn, then the best one again."""
    native.use_isa(request.param)
    yield request.param
    native.use_isa(native.isas()[0])


@st.composite
def weights(draw, most_columns=300):
    """Of any size, dtype and magnitude; whether a scale is one for all."""
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, most_columns))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    weight = torch.randn(rows, columns, generator=generator) * draw(st.sampled_from(SCALES))
    return weight.to(draw(st.sampled_from(DTYPES))), draw(st.booleans()), generator


def each_isa(check):
    """Call with each instruction set; Hypothesis may not draw from a fixture of one test."""
    for name in native.isas():
        native.use_isa(name)
        try:
            check(name)
        finally:
            native.use_isa(native.isas()[0])


def same(found, expected, isa):
    for a, b in zip(found, expected, strict=True):
        if a.dtype.is_floating_point:
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=isa)
        else:
            assert torch.equal(a, b), isa


def close(found, expected, x, dense, isa):
    """Within the rounding of a sum of float32 and of the output."""
    size = x.float().abs() @ dense.float().abs().T + 1e-30  # below, a scale is subnormal
    bound = size * (2e-6 + ROUNDING[found.dtype])
    assert ((found.float() - expected.float()).abs() <= bound).all(), isa


@given(weights(), st.sampled_from([32, 64, 128, 4096]), st.sampled_from(["nf4", "fp4"]), st.integers(1, 11))
def test_four_bits(case, block_size, code, inputs):
    """Codes, absmax, values in each dtype, and products of few and of many rows."""
    weight, nested, generator = case
    packed, absmax = fourbit.reference.quantize(weight, block_size, code)
    scales = fourbit.reference.quantize_absmax(absmax) if nested else (absmax, None, None)
    arguments = (packed, *scales, list(weight.shape), block_size, code)
    dense = fourbit.reference.dequantize(*arguments, torch.float32)
    x = torch.randn(inputs, weight.shape[1], generator=generator).to(weight.dtype)
    bias = torch.randn(len(weight), generator=generator).to(weight.dtype)
    grad = torch.randn(inputs, len(weight), generator=generator).to(weight.dtype)
    product, back = fourbit.reference.linear(x, *arguments, None), fourbit.reference.input_grad(grad, *arguments)

    def check(isa):
        same(fourbit.native.quantize(weight, block_size, code), (packed, absmax), isa)
        for dtype in DTYPES:
            found = fourbit.native.dequantize(*arguments, dtype)
            same([found], [fourbit.reference.dequantize(*arguments, dtype)], isa)
        close(fourbit.native.linear(x, *arguments, None), product, x, dense, isa)
        close(fourbit.native.input_grad(grad, *arguments), back, grad, dense.T, isa)
        with_bias = (
            fourbit.native.linear(x, *arguments, bias).float() - fourbit.native.linear(x, *arguments, None).float()
        )
        largest = product.float().abs().max() + bias.float().abs().max()
        torch.testing.assert_close(with_bias, bias.float().expand_as(with_bias), rtol=0, atol=float(largest) * 2e-2)

    each_isa(check)


@given(
    weights(),
    st.sampled_from([1, 32, 64, 500]),
    st.sampled_from([torch.int8, torch.float8_e4m3fn, torch.float8_e5m2]),
    st.integers(1, 11),
)
def test_eight_bits(case, block_size, code_dtype, inputs):
    """int8 and the two float8 types, a scale a block, a row or the tensor."""
    weight, per_tensor, generator = case
    block_size = weight.shape[1] if per_tensor or block_size > weight.shape[1] else block_size
    codes, absmax = eightbit.reference.quantize(weight, code_dtype, block_size, per_tensor)
    dense = eightbit.reference.dequantize(codes, absmax, block_size, torch.float32)
    x = torch.randn(inputs, weight.shape[1], generator=generator).to(weight.dtype)
    grad = torch.randn(inputs, len(weight), generator=generator).to(weight.dtype)
    product = (x.float() @ dense.T).to(x.dtype)
    back = eightbit.reference.input_grad(grad, codes, absmax, block_size)

    def check(isa):
        same(eightbit.native.quantize(weight, code_dtype, block_size, per_tensor), (codes, absmax), isa)
        for dtype in DTYPES:
            found = eightbit.native.dequantize(codes, absmax, block_size, dtype)
            same([found], [eightbit.reference.dequantize(codes, absmax, block_size, dtype)], isa)
        close(eightbit.native.linear(x, codes, absmax, block_size, None), product, x, dense, isa)
        close(eightbit.native.input_grad(grad, codes, absmax, block_size), back, grad, dense.T, isa)

    each_isa(check)


@given(weights(most_columns=700), st.sampled_from([1, 32, 128, 1000]), st.integers(1, 11))
def test_trits(case, block_size, inputs):
    """Whole chunks and short ones, a scale a block, a row or the tensor."""
    weight, per_tensor, generator = case
    block_size = weight.shape[1] if per_tensor or block_size > weight.shape[1] else block_size
    packed, scale = ternary.reference.quantize(weight, block_size, per_tensor)
    arguments = (packed, scale, list(weight.shape), block_size)
    dense = ternary.reference.dequantize(*arguments, torch.float32)
    x = torch.randn(inputs, weight.shape[1], generator=generator).to(weight.dtype)
    grad = torch.randn(inputs, len(weight), generator=generator).to(weight.dtype)
    product = (x.float() @ dense.T).to(x.dtype)
    back = ternary.reference.input_grad(grad, *arguments)

    def check(isa):
        same(ternary.native.quantize(weight, block_size, per_tensor), (packed, scale), isa)
        for dtype in DTYPES:
            found = ternary.native.dequantize(*arguments, dtype)
            same([found], [ternary.reference.dequantize(*arguments, dtype)], isa)
        close(ternary.native.linear(x, *arguments, None), product, x, dense, isa)
        close(ternary.native.input_grad(grad, *arguments), back, grad, dense.T, isa)

    each_isa(check)


def test_a_trit_is_rounded_as_torch_rounds(isa):
    """Halves to the even, and the numbers next to them, which a sum with 1 would make halves."""
    near = torch.tensor([0.5, 1.5, 0.25, 1.0])
    steps = torch.cat([near, near.nextafter(torch.tensor(2.0)), near.nextafter(torch.tensor(-2.0))])
    weight = torch.cat([steps, -steps]).repeat(8).view(1, -1)
    weight = weight / weight.abs().mean()  # so that the scale is about 1
    for each in (weight, weight * weight.abs().mean(), torch.nextafter(weight, torch.zeros(1))):
        same(ternary.native.quantize(each, 192, True), ternary.reference.quantize(each, 192, True), isa)


def test_every_float8_code_unpacks_as_torch_converts_it(isa):
    """All 256 of both types; what is NaN or infinite in torch is so here."""
    codes = torch.arange(256, dtype=torch.uint8).view(1, -1)
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        absmax = torch.full((1, 1), eightbit.reference.LIMITS[dtype])
        found = eightbit.native.dequantize(codes.view(dtype), absmax, 256, torch.float32)
        torch.testing.assert_close(found, codes.view(dtype).float(), rtol=0, atol=0, equal_nan=True, msg=isa)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_every_half_float_is_read_and_rounded_as_torch_does(isa, dtype):
    """All 65,536 as inputs of a product with the identity, and float32 values between them as results."""
    halves = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype).view(-1, 2)
    halves = halves[halves.isfinite().all(1)]
    weight = torch.eye(2)
    codes, absmax = eightbit.reference.quantize(weight, torch.int8, 2, False)
    for start in range(0, len(halves), 8):
        x = halves[start : start + 8].contiguous()
        assert torch.equal(eightbit.native.linear(x, codes, absmax, 2, None), x), isa


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_passes_through_as_in_torch(isa, bad):
    """An input that is not finite reaches every output of its row, and no other row."""
    weight = torch.randn(24, 128, generator=torch.Generator().manual_seed(0))
    arguments = (*fourbit.quantize_4bit(weight, 64, "nf4"), None, None, [24, 128], 64, "nf4")
    x = torch.ones(3, 128)
    x[1, 70] = bad
    found, expected = fourbit.native.linear(x, *arguments, None), fourbit.reference.linear(x, *arguments, None)
    assert torch.equal(found.isfinite(), expected.isfinite())
    assert torch.equal(found.isnan(), expected.isnan())
    packed, absmax = fourbit.native.quantize(torch.tensor([[bad] + [1.0] * 63]), 64, "nf4")
    same((packed, absmax), fourbit.reference.quantize(torch.tensor([[bad] + [1.0] * 63]), 64, "nf4"), isa)


def test_the_number_of_threads_leaves_no_trace(isa):
    """Every output is computed by one thread, so one thread and many give the same bits."""
    weight = torch.randn(1100, 576, generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, 576, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            packed, absmax = fourbit.native.quantize(weight, 64, "nf4")
            arguments = (packed, absmax, None, None, [1100, 576], 64, "nf4")
            product = fourbit.native.linear(x, *arguments, None)
            found.append((packed, absmax, fourbit.native.dequantize(*arguments, torch.bfloat16), product))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        same(other, found[0], isa)


def test_two_threads_may_call_at_the_same_time(isa):
    """Buffers belong to the caller's thread."""
    from concurrent.futures import ThreadPoolExecutor

    weight = torch.randn(300, 512, generator=torch.Generator().manual_seed(0))
    arguments = (*fourbit.quantize_4bit(weight, 64, "nf4"), None, None, [300, 512], 64, "nf4")
    inputs = [torch.randn(4, 512, generator=torch.Generator().manual_seed(i)) for i in range(64)]
    expected = [fourbit.native.linear(x, *arguments, None) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: fourbit.native.linear(x, *arguments, None), inputs))
    same(found, expected, isa)
