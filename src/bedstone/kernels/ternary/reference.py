"""Weights of -1, 0 and 1 times a scale, four a byte, in plain torch.

    scale = mean |w|, at least 1e-5          over the tensor (BitNet b1.58), a row, or a block of a row
    trit  = round(w / scale) within -1 ... 1
    w     = trit * scale

The quotient is computed as `w * (1 / scale)`, so that the trits are those of transformers' online quantizer. Packed
`[rows, trit_bytes(columns)]` in the chunked 2-bit layout of `layouts.py`; scale `[rows, blocks]`, or `[1, 1]`.

References:
    Ma et al.: The Era of 1-bit LLMs, 2024, https://arxiv.org/abs/2402.17764.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bedstone.kernels import layouts
from bedstone.kernels.blocks import block_absmean, blocks_in, scale_blocks_
from bedstone.kernels.memory import empty_output
from bedstone.kernels.tiles import row_tiles, scratch, tiled_input_grad, tiled_linear

if TYPE_CHECKING:
    from bedstone.kernels.tiles import UnpackRows

_SMALLEST = 1e-5
_SMALL_TILE = 2**20  # bytes of float32


def quantize(weight: torch.Tensor, block_size: int, per_tensor: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return packed trits and scale."""
    rows, columns = weight.shape
    weight = weight.detach()
    packed = torch.empty(rows, layouts.trit_bytes(columns), dtype=torch.uint8, device=weight.device)
    inverse = 1 / _absmean(weight, block_size, per_tensor).clamp_(min=_SMALLEST)
    for start, stop in row_tiles(rows, columns, tile_bytes=_SMALL_TILE):
        dense = torch.empty(stop - start, columns, device=weight.device).copy_(weight[start:stop])
        scale_blocks_(dense, inverse if inverse.shape[0] == 1 else inverse[start:stop], block_size)
        packed[start:stop] = layouts.pack_trits(dense.round_().clamp_(-1, 1).add_(1).to(torch.uint8))
    return packed, 1 / inverse


def dequantize(
    packed: torch.Tensor, scale: torch.Tensor, shape: list[int], block_size: int, dtype: torch.dtype
) -> torch.Tensor:
    """Return the dense matrix; the product is float32, rounded once to `dtype`."""
    rows, columns = shape
    out, unpack = empty_output(shape, dtype, packed.device), row_unpacker(packed, scale, columns, block_size)
    for start, stop in row_tiles(rows, columns, tile_bytes=_SMALL_TILE):
        if dtype is torch.float32:
            unpack(start, stop, out[start:stop])
        else:
            tile = scratch((stop - start) * columns, torch.float32, packed.device, "dense").view(-1, columns)
            unpack(start, stop, tile)
            out[start:stop] = tile
    return out


def linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    scale: torch.Tensor,
    shape: list[int],
    block_size: int,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Return `x @ weight.T + bias`."""
    rows, columns = shape
    return tiled_linear(x, rows, row_unpacker(packed, scale, columns, block_size), bias)


def input_grad(
    grad: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor, shape: list[int], block_size: int
) -> torch.Tensor:
    """Return `grad @ weight`."""
    rows, columns = shape
    return tiled_input_grad(grad, columns, rows, row_unpacker(packed, scale, columns, block_size))


def row_unpacker(packed: torch.Tensor, scale: torch.Tensor, columns: int, block_size: int) -> UnpackRows:
    """Return what writes rows of the dense weight into a buffer of any floating dtype."""

    def unpack(start: int, stop: int, target: torch.Tensor) -> None:
        target.copy_(layouts.unpack_trits(packed[start:stop], columns))
        scale_blocks_(target.sub_(1), scale if scale.shape[0] == 1 else scale[start:stop], block_size)

    return unpack


def _absmean(weight: torch.Tensor, block_size: int, per_tensor: bool) -> torch.Tensor:
    if per_tensor:  # in one go, since the order of the sum decides the last bit, and transformers sums so
        return weight.float().abs().mean().view(1, 1) if weight.numel() else torch.zeros(1, 1, device=weight.device)
    tiles = row_tiles(*weight.shape, tile_bytes=_SMALL_TILE)
    parts = [block_absmean(weight[start:stop].float(), block_size) for start, stop in tiles]
    return torch.cat(parts) if parts else torch.empty(0, blocks_in(weight.shape[1], block_size), device=weight.device)
