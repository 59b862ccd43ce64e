"""A packed weight as the kernels read it: rows of bytes, each byte with the bits of one, two or four elements.

    format        a byte holds                                            elements
    nibbles       element 2j in bits 4-7, 2j + 1 in bits 0-3              2, for an even number of columns
    odd nibbles   the same, but rows begin in the middle of bytes         read one at a time
    int8          a two's complement number                               1
    e4m3, e5m2    a float8                                                1
    trits         four trits, `kernels/layouts.py`                        4

A product need not bring elements into the order of their columns: the elements at one place of all bytes (a plane) are multiplied with the
columns of x that belong to them, which costs nothing but another address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PLANES = {"nibbles": 2, "odd nibbles": 1, "int8": 1, "e4m3": 1, "e5m2": 1, "trits": 4}
"""Elements of a byte by format."""


@dataclass(frozen=True)
class PackedWeight:
    """What every kernel is told of a weight.

    Attributes:
        format: A key of `PLANES`.
        codes: uint8, contiguous.
        scales: float32, contiguous.
        rows: N.
        columns: K.
        row_bytes: Bytes that are read for a row; of `odd nibbles`, elements.
        block_size: Elements that share a scale; 0 where a row has one.
        row_step: How far apart the scales of two rows are; 0 for one scale. Not used for nibbles, whose blocks run on across rows.
        limit: What a scale is divided by; 1 for nothing.
        table: float32 `[16]`, the values of nibbles.
    """

    format: str
    codes: torch.Tensor
    scales: torch.Tensor
    rows: int
    columns: int
    row_bytes: int
    block_size: int
    row_step: int = 0
    limit: float = 1.0
    table: torch.Tensor | None = None


def steps(scale: torch.Tensor, block_size: int) -> tuple[int, int]:
    """Return `block_size` and `row_step` for scales of blocks of a row.

    Args:
        scale: `[rows, blocks]`, or `[1, 1]` for the whole tensor.
        block_size: Columns a block.

    >>> import torch
    >>> steps(torch.ones(8, 3), 64), steps(torch.ones(8, 1), 192), steps(torch.ones(1, 1), 192)
    ((64, 3), (0, 1), (0, 0))
    """
    rows, blocks = scale.shape
    return block_size if blocks > 1 else 0, blocks if rows > 1 or blocks > 1 else 0
