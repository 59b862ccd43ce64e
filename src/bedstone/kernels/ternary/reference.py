"""Weights of -1, 0 and 1 times a scale, four a byte, in plain torch.

    scale = mean |w|, at least 1e-5          over the tensor (BitNet b1.58), a row, or a block of a row
    trit  = round(w / scale) within -1 ... 1
    w     = trit * scale

The quotient is computed as `w * (1 / scale)`, so that the trits are those of transformers' online quantizer. Packed
`[rows, trit_bytes(columns)]` in the chunked 2-bit layout of `layouts.py`; scale `[rows, blocks]`, or `[1, 1]`.

A product need not bring the trits into the order of their columns. The bits 2p of all bytes, masked out and not even shifted,
are trits times 4^p; so x is brought into the order of these four planes instead, divided by 4^p, which is exact. Blocks of
columns with a scale each do not survive this order: there the tile is unpacked as for `dequantize`.

References:
    Ma et al.: The Era of 1-bit LLMs, 2024, https://arxiv.org/abs/2402.17764.
"""

from __future__ import annotations

import torch

from bedstone.core.memory import workspace_buffer
from bedstone.kernels import layouts
from bedstone.kernels.blocks import block_absmean, blocks_in, rows_of, scale_blocks_
from bedstone.kernels.few_rows import int8_linear, suits_int8_linear
from bedstone.kernels.memory import empty_output
from bedstone.kernels.tiles import (
    TiledWeight,
    as_rows,
    computing_dtype,
    row_tiles,
    tiled_input_grad,
    tiled_linear,
)

_SMALLEST = 1e-5
SMALL_TILE = 2**20
"""Bytes of float32 that are rounded or scaled at a time."""
PLANES_TILE = 2**21
"""Bytes of planes of int8 that are multiplied at a time."""


def quantize(weight: torch.Tensor, block_size: int, per_tensor: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return packed trits and scale."""
    rows, columns = weight.shape
    weight = weight.detach()
    packed = torch.empty(rows, layouts.trit_bytes(columns), dtype=torch.uint8, device=weight.device)
    inverse = inverse_scale(weight, block_size, per_tensor)
    for start, stop in row_tiles(rows, columns, tile_bytes=SMALL_TILE):
        dense = _dense_buffer(weight, start, stop, columns).copy_(weight[start:stop])
        scale_blocks_(dense, rows_of(inverse, start, stop), block_size)
        # By way of int8: torch converts to it ten times as fast as to uint8.
        codes = dense.round_().clamp_(-1, 1).add_(1).to(torch.int8).view(torch.uint8)
        packed[start:stop] = layouts.pack_trits(codes)
    return packed, 1 / inverse


def inverse_scale(weight: torch.Tensor, block_size: int, per_tensor: bool) -> torch.Tensor:
    """Return 1 / scale, `[rows, blocks]` or `[1, 1]`; the scale itself is its reciprocal, as in transformers."""
    return 1 / _absmean(weight, block_size, per_tensor).clamp_(min=_SMALLEST)


def dequantize(
    packed: torch.Tensor, scale: torch.Tensor, shape: list[int], block_size: int, dtype: torch.dtype
) -> torch.Tensor:
    """Return the dense matrix; the product is float32, rounded once to `dtype`."""
    rows, columns = shape
    out = empty_output(shape, dtype, packed.device)
    for start, stop in row_tiles(rows, columns, tile_bytes=SMALL_TILE):
        dense = out[start:stop] if dtype is torch.float32 else _dense_buffer(packed, start, stop, columns)
        _unpack(packed[start:stop], rows_of(scale, start, stop), dense, block_size)
        if dtype is not torch.float32:
            out[start:stop] = dense
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
    if not by_planes(x, scale):
        return tiled_linear(x, _tiled(packed, scale, shape, block_size), bias)
    x_MK = as_rows(x)  # noqa: N806 - M rows of x, K columns
    if suits_int8_linear(x_MK):
        x_planes = layouts.to_trit_planes(x_MK)
        tiles = (_planes(packed[start:stop]) for start, stop in row_tiles(*packed.shape, tile_bytes=PLANES_TILE))
        out = int8_linear(x_planes, tiles, scale.view(-1), bias)
    else:
        x_planes = layouts.to_trit_planes(x_MK.to(computing_dtype(x)))
        out = tiled_linear(x_planes, _tiled_planes(packed, scale), bias).to(x.dtype)
    return out.view(*x.shape[:-1], shape[0])


def input_grad(
    grad: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor, shape: list[int], block_size: int
) -> torch.Tensor:
    """Return `grad @ weight`."""
    if not by_planes(grad, scale):
        return tiled_input_grad(grad, _tiled(packed, scale, shape, block_size))
    grad_MN = as_rows(grad).to(computing_dtype(grad))  # noqa: N806
    planes = tiled_input_grad(grad_MN, _tiled_planes(packed, scale))
    return layouts.from_trit_planes(planes, shape[1]).to(grad.dtype).view(*grad.shape[:-1], shape[1])


# --- one tile ------------------------------------------------------------------------------------


def by_planes(x: torch.Tensor, scale: torch.Tensor) -> bool:
    """Return whether products take the planes: scales of whole rows, and a dtype in which x / 64 keeps its bits."""
    return scale.shape[1] == 1 and computing_dtype(x) in (torch.float32, torch.float64)


def _tiled_planes(packed: torch.Tensor, scale: torch.Tensor) -> TiledWeight:
    def unpack(start: int, stop: int, target: torch.Tensor) -> None:
        target.copy_(_planes(packed[start:stop]))

    return TiledWeight(packed.shape[0], 4 * packed.shape[1], unpack, row_scale=scale.view(-1))


def _planes(packed: torch.Tensor) -> torch.Tensor:
    return layouts.trit_planes(packed, workspace_buffer(4 * packed.numel(), torch.uint8, packed.device, "planes"))


def _tiled(packed: torch.Tensor, scale: torch.Tensor, shape: list[int], block_size: int) -> TiledWeight:
    def unpack(start: int, stop: int, target: torch.Tensor) -> None:
        _unpack(packed[start:stop], rows_of(scale, start, stop), target, block_size)

    return TiledWeight(shape[0], shape[1], unpack)


def _unpack(packed: torch.Tensor, scale: torch.Tensor, target: torch.Tensor, block_size: int) -> None:
    target.copy_(layouts.unpack_trits(packed, target.shape[1]))
    scale_blocks_(target.sub_(1), scale, block_size)


def _dense_buffer(matrix: torch.Tensor, start: int, stop: int, columns: int) -> torch.Tensor:
    return workspace_buffer((stop - start) * columns, torch.float32, matrix.device, "dense").view(stop - start, columns)


def _absmean(weight: torch.Tensor, block_size: int, per_tensor: bool) -> torch.Tensor:
    if per_tensor:  # in one go, since the order of the sum decides the last bit, and transformers sums so
        if not weight.numel():
            return _float32_zeros(weight, 1, 1)
        sizes = empty_output(weight.shape, torch.float32, weight.device)
        torch.abs(weight if weight.dtype is torch.float32 else sizes.copy_(weight), out=sizes)
        return sizes.mean().view(1, 1)
    tiles = row_tiles(*weight.shape, tile_bytes=SMALL_TILE)
    parts = [block_absmean(weight[start:stop].float(), block_size) for start, stop in tiles]
    return torch.cat(parts) if parts else _float32_zeros(weight, 0, blocks_in(weight.shape[1], block_size))


def _float32_zeros(weight: torch.Tensor, *shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float32, device=weight.device)
