"""NF4 and FP4: four bits and a scale a block, within half the widest step, and the scales in a byte when asked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.quant import FP4, NF4, QuantizationError

# Half of the widest gap between neighbours of the table, a fraction of the largest magnitude of a block.
HALF_STEP = {"nf4": 0.1520, "fp4": 1 / 6}


def blocks(weight, size):
    flat = weight.reshape(-1)
    return torch.nn.functional.pad(flat, (0, -flat.numel() % size)).view(-1, size)


@given(
    shape=st.sampled_from([(1,), (65,), (3, 64), (5, 77), (2, 3, 50)]),
    size=st.sampled_from([32, 64, 256]),
    kind=st.sampled_from([NF4, FP4]),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
    seed=st.integers(0, 2**31),
)
def test_no_weight_moves_by_more_than_half_a_step_of_its_block(shape, size, kind, scale, seed):
    """For any shape, also where the last block is short."""
    weight = scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    scheme = kind(block_size=size)
    error = blocks(scheme.quantize(weight).dequantize() - weight, size).abs().amax(1)
    assert (error <= HALF_STEP[scheme.name] * (1 + 1e-5) * blocks(weight, size).abs().amax(1)).all()


@pytest.mark.parametrize("kind", [NF4, FP4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_packing_what_was_unpacked_changes_nothing(kind, dtype):
    """The largest magnitude of a block is an entry of the table, so the scale is found again, exactly."""
    once = kind().quantize(torch.randn(16, 100).to(dtype))
    twice = kind().quantize(once.dequantize())
    assert torch.equal(once.dequantize(), twice.dequantize())  # FP4 has a code for -0.0, which becomes that of 0.0
    assert torch.equal(once.parts["absmax"], twice.parts["absmax"])


def test_true_bytes():
    """A nibble a weight and four bytes a block; nested: a byte a block and four a group of 256, and the offset."""
    weight = torch.randn(512, 512)
    assert NF4().quantize(weight).packed_bytes == 512 * 512 // 2 + 4096 * 4
    assert NF4(double_quant=True).quantize(weight).packed_bytes == 512 * 512 // 2 + 4096 + 16 * 4 + 4
    assert NF4(block_size=4096).quantize(weight).packed_bytes == 512 * 512 // 2 + 64 * 4
    assert FP4().quantize(torch.randn(3, 5)).packed_bytes == 8 + 4
    assert NF4().quantize(weight).bits_per_param == 4.5
    assert NF4(double_quant=True).quantize(weight).bits_per_param == pytest.approx(4.127, abs=5e-4)


def test_nested_scales_cost_little_accuracy_and_no_bias():
    """Below 0.1 % of bias in the scales; the error grows by a few percent."""
    weight = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0)) * 0.02
    plain, nested = NF4().quantize(weight), NF4(double_quant=True).quantize(weight)
    ratio = nested.dequantize().abs().double().sum() / plain.dequantize().abs().double().sum()
    assert abs(float(ratio) - 1) < 1e-3

    def error(packed):
        return float((packed.dequantize() - weight).norm() / weight.norm())

    assert 0.085 < error(plain) < 0.095
    assert error(nested) < 1.01 * error(plain)


def test_packing_nested_scales_again_moves_a_weight_by_a_percent_of_the_largest():
    """Their mean is taken anew, so they do not come out the same."""
    once = NF4(double_quant=True).quantize(torch.randn(64, 512)).dequantize()
    twice = NF4(double_quant=True).quantize(once).dequantize()
    moved = float((twice - once).abs().max() / once.abs().max())
    assert 0 < moved < 0.01


def test_says_where_rows_can_be_cut():
    """A block of 64 ends every second row of 96."""
    scheme = NF4()
    weight = scheme.quantize(torch.randn(8, 96))
    assert scheme.slice_rows(weight.parts, (8, 96), 2, 8)["absmax"].shape == (9,)
    with pytest.raises(QuantizationError) as caught:
        scheme.slice_rows(weight.parts, (8, 96), 1, 8)
    assert str(caught.value) == (
        "nf4 cannot be cut at rows 1 to 8: a block of 64 ends every 2 rows of 96. Keep the weight whole on each device."
    )
