"""Tiles cover each row once, and end where blocks end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bedstone.kernels.tiles import TILE_BYTES, row_alignment, row_tiles, rows_in_tile


@given(st.integers(0, 300), st.integers(0, 5000), st.integers(1, 64), st.integers(1, 2**20))
def test_tiles_cover_every_row_once(rows, columns, align, tile_bytes):
    """In order, without gaps; each starts at a multiple of the alignment and is no larger than it must be."""
    tiles = list(row_tiles(rows, columns, align=align, tile_bytes=tile_bytes))
    assert [row for start, stop in tiles for row in range(start, stop)] == list(range(rows))
    for start, stop in tiles:
        assert start % align == 0
        assert 4 * (stop - start) * columns <= max(tile_bytes, 4 * align * columns)


@given(st.integers(1, 5000), st.sampled_from([32, 64, 128, 4096]))
def test_an_aligned_row_starts_a_block(columns, block_size):
    """And no smaller number of rows does."""
    align = row_alignment(columns, block_size)
    assert align * columns % block_size == 0
    assert all(rows * columns % block_size for rows in range(1, min(align, 100)))


def test_tiles_are_full_unless_rows_run_out():
    """A tile of the default size holds what 4 MiB hold."""
    assert rows_in_tile(4096) * 4096 * 4 == TILE_BYTES
    assert list(row_tiles(300, 4096)) == [(0, 256), (256, 300)]
