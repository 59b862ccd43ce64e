"""Scales that belong to blocks of a row: one a block of `block_size` columns, the last block of a row may be shorter.

One scale a row is one block a row (`block_size` = columns). One scale for the whole tensor is a scale of shape `[1, 1]`.
Weights `[rows, columns]`, scales `[rows, ceil(columns / block_size)]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def blocks_in(columns: int, block_size: int) -> int:
    """Return how many blocks a row has.

    >>> blocks_in(576, 64), blocks_in(100, 64), blocks_in(0, 64)
    (9, 2, 0)
    """
    return -(-columns // block_size)


def block_absmax(weight: torch.Tensor, block_size: int) -> torch.Tensor:
    """Return the largest magnitude of each block; NaN and infinity pass through.

    Args:
        weight: float32 `[rows, columns]`.
        block_size: Columns a block.

    Returns:
        float32 `[rows, blocks]`; 0 for a block without elements.

    >>> block_absmax(torch.tensor([[1.0, -3.0, 2.0]]), 2)
    tensor([[3., 2.]])
    """
    # Not `vector_norm`: its maximum is a plain loop, ten times slower.
    return _reduce(weight, block_size, lambda blocks: blocks.abs().amax(dim=-1))


def block_absmean(weight: torch.Tensor, block_size: int) -> torch.Tensor:
    """Return the mean magnitude of each block, over the elements that it really has.

    Args:
        weight: float32 `[rows, columns]`.
        block_size: Columns a block.

    >>> block_absmean(torch.tensor([[1.0, -3.0, 2.0]]), 2)
    tensor([[2., 2.]])
    """
    return _reduce(weight, block_size, lambda blocks: blocks.abs().mean(dim=-1))


def scale_blocks_(weight: torch.Tensor, scale: torch.Tensor, block_size: int) -> torch.Tensor:
    """Multiply each block of `weight` by its scale, in place.

    Args:
        weight: Floating `[rows, columns]`, contiguous.
        scale: `[rows, blocks]`, or `[1, 1]` for all.
        block_size: Columns a block.

    Returns:
        `weight`.

    >>> scale_blocks_(torch.ones(1, 3), torch.tensor([[2.0, 5.0]]), 2)
    tensor([[2., 2., 5.]])
    """
    columns = weight.shape[1]
    if scale.shape[-1] <= 1:
        return weight.mul_(scale) if scale.numel() else weight
    cut = columns // block_size * block_size
    full = weight[:, :cut].unflatten(1, (-1, block_size))
    full.mul_(scale[:, : cut // block_size].unsqueeze(-1))
    if columns > cut:
        weight[:, cut:].mul_(scale[:, -1:])
    return weight


def rows_of(scale: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Return the scales of rows `start` to `stop`; the scale of a whole tensor, `[1, 1]`, as it is.

    >>> rows_of(torch.tensor([[2.0], [3.0], [4.0]]), 1, 3).flatten(), rows_of(torch.tensor([[5.0]]), 1, 3).flatten()
    (tensor([3., 4.]), tensor([5.]))
    """
    return scale if scale.shape[0] == 1 else scale[start:stop]


def _reduce(weight: torch.Tensor, block_size: int, reduce: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    rows, columns = weight.shape
    if not columns:
        return weight.new_empty(rows, 0)
    cut = columns // block_size * block_size
    parts = []
    if cut:
        parts.append(reduce(weight[:, :cut].unflatten(1, (-1, block_size))))
    if columns > cut:
        parts.append(reduce(weight[:, cut:]).unsqueeze(1))
    return torch.cat(parts, dim=1)
