"""Scales of blocks of a row: any number of columns, the last block counts what it has."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.kernels.blocks import block_absmax, block_absmean, blocks_in, rows_of, scale_blocks_

sizes = st.integers(0, 5), st.integers(0, 40), st.integers(1, 45)


def pieces(matrix, block_size):
    return [matrix[:, start : start + block_size] for start in range(0, matrix.shape[1], block_size)]


@given(*sizes)
def test_reduces_each_block_alone(rows, columns, block_size):
    """Against a loop over the blocks."""
    weight = torch.randn(rows, columns)
    for found, reduce in ((block_absmax, torch.amax), (block_absmean, torch.mean)):
        result = found(weight, block_size)
        assert result.shape == (rows, blocks_in(columns, block_size))
        for column, piece in enumerate(pieces(weight, block_size)):
            torch.testing.assert_close(result[:, column], reduce(piece.abs(), dim=1))


@given(*sizes)
def test_scales_each_block_alone(rows, columns, block_size):
    """Against a loop over the blocks; in place."""
    weight = torch.randn(rows, columns)
    scale = torch.randn(rows, blocks_in(columns, block_size))
    expected = [piece * scale[:, i : i + 1] for i, piece in enumerate(pieces(weight, block_size))]
    assert scale_blocks_(weight, scale, block_size) is weight
    assert torch.equal(weight, torch.cat(expected, dim=1) if expected else weight)


def test_one_scale_serves_the_whole_matrix():
    """`[1, 1]` reaches every row, whichever rows are asked for."""
    weight = torch.ones(3, 5)
    scale_blocks_(weight, rows_of(torch.tensor([[4.0]]), 1, 3), 2)
    assert torch.equal(weight, torch.full((3, 5), 4.0))


def test_what_is_not_finite_shows():
    """NaN and infinity reach the scale of their block and no other."""
    weight = torch.tensor([[1.0, torch.nan, 2.0, 3.0], [torch.inf, 1.0, 1.0, 1.0]])
    assert torch.equal(block_absmax(weight, 2).isfinite(), torch.tensor([[False, True], [False, True]]))
