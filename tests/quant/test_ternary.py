"""ternary: the sign of what is large, zero for what is small, times the mean magnitude; what it costs is said."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.kernels.layouts import unpack_trits
from bedstone.quant import Ternary


def trits(packed):
    return unpack_trits(packed.parts["packed"], packed.shape[-1]).int() - 1


@given(rows=st.integers(1, 5), columns=st.integers(1, 300), seed=st.integers(0, 2**31))
def test_equals_its_definition(rows, columns, seed):
    """With a scale a row, computed here in the plain way; a quotient next to one half may fall to either side."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    packed = Ternary("row").quantize(weight)
    scale = weight.abs().mean(1, keepdim=True)
    quotient = weight / scale
    safe = (quotient.abs() - 0.5).abs() > 1e-5
    assert torch.allclose(packed.parts["scale"], scale, rtol=1e-6)
    assert torch.equal(trits(packed)[safe], quotient.round().clamp(-1, 1).int()[safe])


def test_true_bytes():
    """A quarter of a byte a weight, a row at a time, and four bytes a scale."""
    sizes = [Ternary(g, 32).quantize(torch.randn(8, 130)).packed_bytes for g in ("tensor", "row", "block")]
    assert sizes == [8 * 33 + 4, 8 * 33 + 8 * 4, 8 * 33 + 8 * 5 * 4]


def test_weights_below_the_smallest_scale_are_zero():
    """The scale is at least 1e-5, as in BitNet."""
    packed = Ternary().quantize(torch.full((2, 8), 4e-6))
    assert not packed.dequantize().any()
    assert packed.parts["scale"].item() == pytest.approx(1e-5)


def test_loses_half_of_normal_weights():
    """The figure of the explanation: it is for models that were trained this way."""
    weight = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0)) * 0.02
    for granularity in ("tensor", "row", "block"):
        error = float((Ternary(granularity).quantize(weight).dequantize() - weight).norm() / weight.norm())
        assert 0.50 < error < 0.52


def test_packing_what_was_unpacked_keeps_the_trits_and_shrinks_the_scale():
    """By the share of weights that are not zero, since the scale is the mean over all of them: 0.69 of normal weights."""
    once = Ternary().quantize(torch.randn(256, 256, generator=torch.Generator().manual_seed(0)))
    twice = Ternary().quantize(once.dequantize())
    share = float((trits(once) != 0).float().mean())
    assert torch.equal(trits(once), trits(twice))
    assert float(twice.parts["scale"] / once.parts["scale"]) == pytest.approx(share, rel=1e-5)
    assert share == pytest.approx(0.69, abs=0.005)
