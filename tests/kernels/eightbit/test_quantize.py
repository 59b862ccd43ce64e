"""Eight bits: int8 rows are bitsandbytes', every block keeps its error bound, whatever its size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bedstone.kernels.eightbit import dequantize_8bit, quantize_8bit, reference

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
SUBNORMAL = 2.0**-149  # the smallest float32, the grain of everything that is subnormal


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 576), (5, 4096)])
@pytest.mark.parametrize("kind", ["normal", "spread", "constant", "ties"])
def test_int8_rows_are_those_of_bitsandbytes(bnb, shape, kind):
    """Codes and absmax bit for bit, from float16 as it takes them."""
    weight = torch.randn(shape)
    if kind == "spread":
        weight *= 10.0 ** torch.randint(-6, 4, (shape[0], 1))
    elif kind == "constant":
        weight = torch.full(shape, -0.3)
    elif kind == "ties":  # absmax 127, so that halves lie between two codes
        weight = torch.randint(-253, 254, shape) / 2
        weight[:, 0] = 127
    weight = weight.half()
    codes, absmax = quantize_8bit(weight, torch.int8, shape[1], False)
    expected, row_stats, _ = bnb.int8_vectorwise_quant(weight)
    assert torch.equal(codes, expected)
    assert torch.equal(absmax.view(-1), row_stats)
    dense = dequantize_8bit(codes, absmax, shape[1], torch.float32)
    torch.testing.assert_close(dense, bnb.int8_vectorwise_dequant(expected, row_stats), rtol=3e-7, atol=0)


def test_float8_codes_are_torchs_own_rounding():
    """A weight whose largest magnitude is the type's is only rounded."""
    for dtype in FLOAT8:
        weight = torch.randn(9, 50) * 100
        weight[:, 0] = reference.LIMITS[dtype]
        codes, absmax = quantize_8bit(weight, dtype, 50, False)
        assert torch.equal(absmax, torch.full((9, 1), reference.LIMITS[dtype]))
        assert torch.equal(codes.view(torch.uint8), weight.clamp(-absmax, absmax).to(dtype).view(torch.uint8))


def bound(dtype, weight, absmax):
    """How far a weight may move: half a step of its code, and one grain where float32 itself has no finer."""
    if dtype is torch.int8:
        step = absmax / 127
    else:
        mantissa, smallest = (3, 2.0**-9) if dtype is torch.float8_e4m3fn else (2, 2.0**-16)
        limit = reference.LIMITS[dtype]
        step = (weight.abs() * 2.0**-mantissa).clamp_min(absmax / limit * smallest)
    return step.double() / 2 * (1 + 2**-10) + SUBNORMAL


@pytest.mark.parametrize("dtype", [torch.int8, *FLOAT8], ids=str)
@pytest.mark.parametrize("exponent", [-149, -148, -140, -130, -126, -120, -118, -113, -100, -64, 0, 64, 120, 127])
def test_a_block_of_any_size_keeps_the_bound(dtype, exponent):
    """From the smallest subnormal absmax to the largest float: nothing becomes zero, infinite or NaN on the way."""
    weight = (torch.rand(4, 100, dtype=torch.float64) * 2 - 1) * 2.0**exponent
    weight[:, 7] = 2.0**exponent
    weight = weight.float()
    for block_size in (100, 32):
        codes, absmax = quantize_8bit(weight, dtype, block_size, False)
        found = dequantize_8bit(codes, absmax, block_size, torch.float32)
        scales = absmax.repeat_interleave(block_size, 1)[:, :100].double()
        assert ((found.double() - weight.double()).abs() <= bound(dtype, weight.double(), scales)).all()


@given(
    hnp.arrays(
        "float32",
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    st.sampled_from([torch.int8, *FLOAT8]),
    st.integers(1, 24),
    st.booleans(),
)
def test_any_weight_keeps_the_bound(array, dtype, block_size, per_tensor):
    """Any shape, any block size, any finite values side by side."""
    weight = torch.from_numpy(array.copy())
    block_size = weight.shape[1] if per_tensor else block_size
    codes, absmax = quantize_8bit(weight, dtype, block_size, per_tensor)
    found = dequantize_8bit(codes, absmax, block_size, torch.float32)
    scales = absmax.double()
    if not per_tensor:
        scales = scales.repeat_interleave(block_size, 1)[:, : weight.shape[1]]
    assert ((found.double() - weight.double()).abs() <= bound(dtype, weight.double(), scales)).all()


def test_scales_that_are_halves_unpack_exactly():
    """GGUF's Q8_0: every positive half times every code, without a rounding."""
    halves = torch.arange(1, 0x7C00, dtype=torch.int16).view(torch.float16).float().unsqueeze(1)
    codes = torch.arange(-127, 128, dtype=torch.int8).expand(len(halves), -1).contiguous()
    assert torch.equal(dequantize_8bit(codes, halves * 127, 255, torch.float32), codes * halves)


@given(st.floats(2.0**-99, 2.0**127, width=32), st.sampled_from([torch.int8, *FLOAT8]))
def test_what_was_unpacked_packs_to_the_same_values(largest, dtype):
    """Whatever the scale, as often as one likes."""
    weight = torch.linspace(-1, 1, 301).unsqueeze(0) * largest
    dense = dequantize_8bit(*quantize_8bit(weight, dtype, 301, False), 301, torch.float32)
    assert torch.equal(dequantize_8bit(*quantize_8bit(dense, dtype, 301, False), 301, torch.float32), dense)


@pytest.mark.parametrize("dtype", [torch.int8, *FLOAT8], ids=str)
def test_zero_rows_stay_zero(dtype):
    """A row of zeros beside one that is not, and a weight of zeros."""
    weight = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    for per_tensor in (False, True):
        for each in (weight, weight * 0):
            codes, absmax = quantize_8bit(each, dtype, 2, per_tensor)
            found = dequantize_8bit(codes, absmax, 2, torch.float32)
            assert found.isfinite().all()
            assert not found[0].any()


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_tiles_and_strides_leave_no_trace(per_tensor, source, monkeypatch):
    """One row a tile or all at once; a transposed weight as its copy."""
    weight = torch.randn(70, 33).to(source).T
    block_size = 70 if per_tensor else 16
    whole = quantize_8bit(weight.contiguous(), torch.int8, block_size, per_tensor)
    dense = dequantize_8bit(*whole, block_size, torch.bfloat16)
    monkeypatch.setattr(reference, "SMALL_TILE", 4 * 70 * 2)
    for found, expected in zip(quantize_8bit(weight, torch.int8, block_size, per_tensor), whole, strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(dequantize_8bit(*whole, block_size, torch.bfloat16), dense)
