"""Codes, absmax, nested scales and dequantized values are those of bitsandbytes, bit for bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bedstone.kernels import layouts
from bedstone.kernels.fourbit import dequantize_4bit, linear_4bit, quantize_4bit, quantize_absmax

BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def at_midpoints(code, count):
    """Values that lie exactly between two entries, one step of float32 above, and one below, in blocks whose absmax is 1."""
    table = layouts.code_table(code, torch.device("cpu")).sort().values
    middle = (table[1:] + table[:-1]) / 2
    near = [middle, torch.nextafter(middle, torch.tensor(2.0)), torch.nextafter(middle, torch.tensor(-2.0)), table]
    values = torch.cat([torch.tensor([1.0, -1.0, 0.0, -0.0]), *near])
    return values.repeat(-(-count // values.numel()))[:count]


def weights(code, count):
    """Weights of `count` elements by what is special about them."""
    generator = torch.Generator().manual_seed(count)
    normal = torch.randn(count, generator=generator)
    spread = normal * 10.0 ** torch.randint(-44, 38, (count,), generator=generator).float()
    return {
        "normal": normal,
        "small": normal * 0.02,
        "zero": torch.zeros(count),
        "minus zero": -torch.zeros(count),
        "constant": torch.full((count,), -0.3),
        "one spike": torch.zeros(count).index_fill_(0, torch.tensor([count // 2]), 7.0),
        "subnormal": normal * 1e-41,
        "smallest": torch.full((count,), 2.0**-149),
        "around the smallest divisor": normal * 1e-38,
        "huge": normal.clamp(-3, 3) * 1e38,
        "every magnitude": spread.clamp(-3e38, 3e38),
        "midpoints": at_midpoints(code, count),
        "scaled midpoints": at_midpoints(code, count) * 0.0173,
    }


def same_bits(found, expected):
    """Whether two tensors agree in every bit; -0 is not 0."""
    integers = {4: torch.int32, 2: torch.int16, 1: torch.uint8}[found.element_size()]
    same = found.dtype == expected.dtype and found.shape == expected.shape
    return same and torch.equal(found.view(integers), expected.view(integers))


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_packs_as_bitsandbytes_does(bnb, code, block_size, dtype):
    """Whole blocks, a short last one, an odd number of elements, a single one."""
    for count in (3 * block_size, 2 * block_size + 26, block_size + 1, block_size - 1, 1):
        for kind, full in weights(code, count).items():
            weight = full.to(dtype)
            if not weight.isfinite().all():  # float16 ends at 65,504
                continue
            packed, absmax = quantize_4bit(weight, block_size, code)
            expected, state = bnb.quantize_4bit(weight, blocksize=block_size, quant_type=code)
            assert same_bits(absmax, state.absmax), (kind, count)
            assert same_bits(packed, expected.view(-1)), (kind, count)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unpacks_as_bitsandbytes_does(bnb, bitsandbytes_dense, code, block_size, dtype):
    """Into each dtype, rows that end inside a block, and an odd number of columns."""
    for shape in [(3, block_size), (5, block_size // 2 + 2), (3, 7)]:
        for kind, weight in weights(code, shape[0] * shape[1]).items():
            packed, state = bnb.quantize_4bit(weight.view(shape), blocksize=block_size, quant_type=code)
            state.dtype = dtype
            found = dequantize_4bit(packed.view(-1), state.absmax, None, None, shape, block_size, code, dtype)
            assert torch.equal(found, bitsandbytes_dense(packed, state)), (kind, shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unpacks_whole_rows_as_its_compiled_function_does(bnb, code, dtype):
    """Whatever CPU it was compiled for."""
    for kind in ("normal", "small", "constant", "midpoints"):
        weight = weights(code, 6 * 192)[kind].view(6, 192)
        packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=code)
        state.dtype = dtype
        found = dequantize_4bit(packed.view(-1), state.absmax, None, None, weight.shape, 64, code, dtype)
        assert torch.equal(found, bnb.dequantize_4bit(packed, state)), kind


@pytest.mark.parametrize("block_size", [32, 64, 4096])
def test_every_byte_and_every_scale_unpacks_alike(bnb, bitsandbytes_dense, code, block_size):
    """All 256 bytes under scales from subnormal to huge, codes that no quantizer makes included."""
    packed = torch.arange(256, dtype=torch.uint8).repeat(32)
    blocks = packed.numel() * 2 // block_size
    absmax = (10.0 ** torch.linspace(-44, 38, blocks, dtype=torch.float64)).float()
    shape = (32, 512)
    for dtype in DTYPES:
        found = dequantize_4bit(packed, absmax, None, None, shape, block_size, code, dtype)
        table = bnb.get_4bit_type(code, "cpu")
        state = bnb.QuantState(absmax, shape, table, block_size, code, dtype)
        assert torch.equal(found, bitsandbytes_dense(packed, state))


@pytest.mark.parametrize("blocks", [1, 2, 255, 256, 257, 1000])
def test_nests_scales_as_bitsandbytes_does(bnb, bitsandbytes_dense, code, blocks):
    """Bytes, their absmax and the offset; then the scales that come back."""
    for kind, weight in weights(code, 64 * blocks).items():
        if kind in ("huge", "every magnitude"):  # their mean overflows, in bitsandbytes too
            continue
        expected, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=code, compress_statistics=True)
        packed, absmax = quantize_4bit(weight, 64, code)
        nested = quantize_absmax(absmax)
        for found, theirs in zip(nested, (state.absmax, state.state2.absmax, state.offset), strict=True):
            assert same_bits(found, theirs), kind
        dense = dequantize_4bit(packed, *nested, weight.shape, 64, code, torch.float32)
        assert torch.equal(dense, bitsandbytes_dense(expected, state)), kind


def test_nested_scales_are_smaller_and_right_on_average():
    """A quarter of the bytes and a bit; no scale is off by 1 %, all of them together by less than 0.1 %."""
    _, absmax = quantize_4bit(torch.randn(2**20) * 0.02, 64, "nf4")
    codes, nested_absmax, offset = quantize_absmax(absmax)
    assert codes.nbytes + nested_absmax.nbytes + offset.nbytes < 0.27 * absmax.nbytes
    ones = torch.full((2**19,), 0xFF, dtype=torch.uint8)  # the code of 1 throughout: what comes back is the scale
    scales = dequantize_4bit(ones, codes, nested_absmax, offset, [absmax.numel(), 64], 64, "nf4", torch.float32)[:, 0]
    relative = scales / absmax - 1
    assert relative.abs().max() < 0.01
    assert relative.mean().abs() < 0.001


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=200), st.data())
@settings(max_examples=100)
def test_any_weight_packs_as_bitsandbytes_packs_it(values, data):
    """Whatever 32 bits a finite float has."""
    functional = pytest.importorskip("bitsandbytes").functional
    code, block_size = data.draw(st.sampled_from(["nf4", "fp4"])), data.draw(st.sampled_from([32, 64, 128]))
    weight = torch.tensor(values, dtype=torch.float32)
    packed, absmax = quantize_4bit(weight, block_size, code)
    expected, state = functional.quantize_4bit(weight, blocksize=block_size, quant_type=code)
    assert same_bits(absmax, state.absmax)
    assert same_bits(packed, expected.view(-1))


def test_multiplies_as_bitsandbytes_does(bnb, code):
    """Both multiply by the same dense weight: only the order of the sums differs."""
    weight = torch.randn(48, 256)
    packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=code)
    for x in (torch.randn(1, 256), torch.randn(5, 256)):
        found = linear_4bit(x, packed.view(-1), state.absmax, None, None, [48, 256], 64, code, None)
        expected = torch.ops.bitsandbytes.gemm_4bit(x, packed, [48, 256], state.absmax, 64, code)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_packs_any_strides_as_their_copy(code):
    """A transposed or sliced weight is read row after row."""
    for weight in (torch.randn(64, 48).T, torch.randn(48, 128)[:, ::2], torch.randn(1, 64).expand(3, 64)):
        for found, expected in zip(
            quantize_4bit(weight, 64, code), quantize_4bit(weight.contiguous(), 64, code), strict=True
        ):
            assert torch.equal(found, expected)


def test_packs_beyond_one_tile_as_within(code, monkeypatch):
    """Tiles end where blocks end, so that their size leaves no trace."""
    from bedstone.kernels.fourbit import reference

    weight = torch.randn(5 * 128 + 33)
    whole = quantize_4bit(weight, 64, code)
    dense = dequantize_4bit(*whole, None, None, weight.shape, 64, code, torch.bfloat16)
    for tile in (1, 64, 130, 192):
        monkeypatch.setattr(reference, "FLAT_TILE", tile)
        cut = quantize_4bit(weight, 64, code)
        assert all(same_bits(found, expected) for found, expected in zip(cut, whole, strict=True))
        assert same_bits(dequantize_4bit(*whole, None, None, weight.shape, 64, code, torch.bfloat16), dense)
