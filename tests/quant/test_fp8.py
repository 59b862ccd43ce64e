"""fp8: float8 codes whose range is used whole, with one scale a tensor, a row or a block."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.quant import FP8

# Half a unit in the last place of the largest binade, as a fraction of the largest code: 16 / 448 and 4096 / 57344.
HALF_STEP = {"e4m3fn": 16 / 448, "e5m2": 4096 / 57344}


@given(
    shape=st.sampled_from([(1, 1), (3, 40), (5, 33)]),
    granularity=st.sampled_from(["tensor", "row", "block"]),
    kind=st.sampled_from(["e4m3fn", "e5m2"]),
    scale=st.sampled_from([1e-30, 1.0, 1e35]),
    seed=st.integers(0, 2**31),
)
def test_no_weight_moves_by_more_than_half_a_step_of_the_largest(shape, granularity, kind, scale, seed):
    """Of all weights with a scale for the tensor; finer scales only lower it."""
    weight = scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    error = (FP8(granularity, 32, kind).quantize(weight).dequantize() - weight).abs()
    assert error.max() <= HALF_STEP[kind] * (1 + 1e-5) * weight.abs().max()


@pytest.mark.parametrize(("kind", "largest"), [("e4m3fn", 448.0), ("e5m2", 57344.0)])
def test_uses_the_whole_range_and_never_leaves_it(kind, largest):
    """The largest magnitude is the largest code; e5m2 would overflow beyond it."""
    q = FP8("row", format=kind).quantize(torch.tensor([[3.3, -1.0], [1e-20, 5e-21], [0.0, 0.0]]))
    assert q.parts["codes"].float().abs().amax(1).tolist() == [largest, largest, 0.0]
    assert torch.isfinite(q.dequantize()).all()


def test_true_bytes():
    """A byte a weight and four bytes a scale."""
    sizes = [FP8(g, 32).quantize(torch.randn(8, 100)).packed_bytes for g in ("tensor", "row", "block")]
    assert sizes == [800 + 4, 800 + 8 * 4, 800 + 8 * 4 * 4]


def test_finer_scales_help_against_outliers_only():
    """On normal weights the error is the same; with one huge weight a scale a row saves the other rows."""
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))

    def error(granularity):
        # Of all rows but the first, where the outlier is.
        return float((FP8(granularity).quantize(weight).dequantize() - weight)[1:].norm() / weight[1:].norm())

    assert error("tensor") == pytest.approx(error("row"), rel=0.03)
    weight[0, 0] = 1e6
    assert error("tensor") > 5 * error("row")
