"""Which weights share a scale: options are checked, and rows are cut with their scales."""

from __future__ import annotations

import pytest
import torch

from bedstone.core.errors import InvalidConfigError
from bedstone.quant import FP8, Int8, QuantizationError, Ternary
from bedstone.quant.granularity import as_matrix, columns_in_block, slice_part_rows


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Int8("tensor"), "`granularity` (='tensor') must be one of row, block."),
        (lambda: FP8("group"), "`granularity` (='group') must be one of tensor, row, block."),
        (lambda: Ternary("block", 0), "`block_size` (=0) must be a whole number of at least 1."),
        (lambda: Ternary("block", True), "`block_size` (=True) must be a whole number of at least 1."),
        (lambda: Int8("block", 32.0), "`block_size` (=32.0) must be a whole number of at least 1."),
    ],
)
def test_refuses_an_option_that_is_not_allowed(make, said):
    """With the list of those that are."""
    with pytest.raises(InvalidConfigError) as caught:
        make()
    assert said in str(caught.value)


def test_every_problem_is_told_at_once():
    """Not one a run."""
    with pytest.raises(InvalidConfigError, match="FP8 has 3 problems"):
        FP8("x", -1, "e3m4")


def test_a_block_is_a_row_unless_asked_otherwise():
    """Also for a weight of no columns."""
    assert [columns_in_block((2, 9), g, 4) for g in ("tensor", "row", "block")] == [9, 9, 4]
    assert columns_in_block((2, 0), "row", 4) == 1


def test_any_shape_is_a_matrix_of_its_last_dimension():
    """Convolutions and vectors too."""
    assert [as_matrix(torch.ones(s)).shape for s in ((3,), (2, 3), (2, 3, 4), (0, 3), (2, 0))] == [
        (1, 3),
        (2, 3),
        (6, 4),
        (0, 3),
        (2, 0),
    ]


def test_rows_are_cut_with_their_scales_as_views():
    """Of a weight of three dimensions a row is a whole slice."""
    parts = {"codes": torch.arange(24).view(6, 4), "absmax": torch.arange(6).view(6, 1), "scale": torch.ones(1, 1)}
    cut = slice_part_rows(parts, (3, 2, 4), 1, 2, "int8")
    assert cut["codes"].tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert cut["absmax"].tolist() == [[2], [3]]
    assert cut["scale"] is parts["scale"]
    assert cut["codes"].untyped_storage().data_ptr() == parts["codes"].untyped_storage().data_ptr()


def test_a_vector_is_one_row_that_is_not_cut():
    """Its parts have a row; a cut of it would hold no values."""
    parts = {"codes": torch.ones(1, 4), "absmax": torch.ones(1, 1)}
    assert slice_part_rows(parts, (4,), 0, 4, "int8") == parts
    with pytest.raises(QuantizationError) as caught:
        slice_part_rows(parts, (4,), 0, 2, "int8")
    assert str(caught.value) == (
        "int8 cannot be cut at 0 to 2: a weight of one dimension is a single row. Keep the weight whole on each device."
    )
