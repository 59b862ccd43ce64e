"""Ternary weights: the trits of transformers' BitNet, and scales of a tensor, a row or a block."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.kernels import layouts
from bedstone.kernels.blocks import block_absmean
from bedstone.kernels.ternary import dequantize_ternary, quantize_ternary, reference


@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (64, 576), (130, 257)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_trits_are_those_of_transformers(shape, dtype):
    """Its online quantizer returns trit over scale in the weight's dtype: the same numbers, bit for bit."""
    bitnet = pytest.importorskip("transformers.integrations.bitnet")
    for factor in (1.0, 0.02, 1e-7):
        weight = (torch.randn(shape) * factor).to(dtype)
        with torch.compiler.set_stance("force_eager"):
            expected = bitnet.WeightQuant.apply(weight)
        packed, scale = quantize_ternary(weight, shape[1], True)
        found = dequantize_ternary(packed, scale, shape, shape[1], torch.float32)
        assert torch.equal(found.sign(), expected.float().sign())
        torch.testing.assert_close(found, expected.float(), rtol=torch.finfo(dtype).eps, atol=0)


def test_a_scale_is_the_mean_magnitude_of_its_block():
    """At least 1e-5, so that a block of zeros has one too; the last block counts what it has."""
    weight = torch.randn(3, 40)
    weight[1, :32] = 0
    packed, scale = quantize_ternary(weight, 32, False)
    torch.testing.assert_close(scale, block_absmean(weight, 32).clamp(min=1e-5))
    dense = dequantize_ternary(packed, scale, [3, 40], 32, torch.float32)
    factor = scale.repeat_interleave(32, 1)[:, :40]
    torch.testing.assert_close(dense, (weight / factor).round().clamp(-1, 1) * factor)


@given(st.integers(1, 9), st.integers(1, 300), st.integers(1, 300), st.data())
def test_quantizing_again_changes_nothing(rows, columns, block_size, data):
    """Trits times a scale have these trits and, where none is 0, this scale."""
    trits = data.draw(st.sampled_from([-1.0, 1.0])) * torch.ones(rows, columns)
    trits[:, ::3] *= -1
    packed, scale = quantize_ternary(trits * 0.5, block_size, False)
    dense = dequantize_ternary(packed, scale, [rows, columns], block_size, torch.float32)
    assert torch.equal(dense, trits * 0.5)
    assert torch.equal(quantize_ternary(dense, block_size, False)[0], packed)


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_tiles_and_strides_leave_no_trace(per_tensor, source, monkeypatch):
    """One row a tile or all at once; a transposed weight as its copy; the weight itself is not touched."""
    weight = torch.randn(150, 33).to(source).T
    before = weight.clone()
    block_size = 150 if per_tensor else 16
    whole = quantize_ternary(weight.contiguous(), block_size, per_tensor)
    dense = dequantize_ternary(*whole, [33, 150], block_size, torch.bfloat16)
    monkeypatch.setattr(reference, "SMALL_TILE", 4 * 150 * 2)
    packed, scale = quantize_ternary(weight, block_size, per_tensor)
    assert torch.equal(packed, whole[0])
    torch.testing.assert_close(scale, whole[1])
    assert torch.equal(dequantize_ternary(*whole, [33, 150], block_size, torch.bfloat16), dense)
    assert torch.equal(weight, before)


@given(st.integers(0, 6), st.integers(1, 300), st.integers(0, 5))
def test_a_product_in_planes_is_the_product_of_the_trits(rows, columns, inputs):
    """X in the order of the planes, times trits in the order of the planes; and the way back for a gradient."""
    codes = torch.randint(0, 3, (rows, columns), dtype=torch.uint8)
    packed, trits = layouts.pack_trits(codes), codes.double() - 1
    planes = layouts.trit_planes(packed, torch.empty(4 * packed.numel(), dtype=torch.uint8)).double()
    x, grad = torch.randn(inputs, columns).double(), torch.randn(inputs, rows).double()
    torch.testing.assert_close(layouts.to_trit_planes(x) @ planes.T, x @ trits.T)
    torch.testing.assert_close(layouts.from_trit_planes(grad @ planes, columns), grad @ trits)
