"""One byte a weight and one absmax a block of a row, in plain torch: int8 and the two float8 types.

    code = round(w * limit / absmax)      limit: 127 for int8, 448 for float8_e4m3fn, 57,344 for float8_e5m2
    w    = code * absmax / limit

int8 with one block a row is bitsandbytes' `int8_vectorwise_quant`, bit for bit; with blocks of 32 it is GGUF's Q8_0, whose
scale is a half. Weights and codes `[rows, columns]`, absmax `[rows, blocks]`, or `[1, 1]` for the whole tensor.

References:
    Dettmers, Lewis, Belkada, Zettlemoyer: LLM.int8(), 2022, https://arxiv.org/abs/2208.07339.
    Micikevicius et al.: FP8 Formats for Deep Learning, 2022, https://arxiv.org/abs/2209.05433.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bedstone.kernels.blocks import block_absmax, blocks_in, scale_blocks_
from bedstone.kernels.memory import empty_output
from bedstone.kernels.tiles import row_tiles, scratch, tiled_input_grad, tiled_linear

if TYPE_CHECKING:
    from bedstone.kernels.tiles import UnpackRows

LIMITS = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}
"""The largest magnitude of each type of code."""

_TINY = 1e-36  # below it, limit / absmax leaves float32
_LIFT = 2.0**64
_SMALL_TILE = 2**20  # bytes; stays in the second-level cache while it is rounded or scaled
_FEW_ROWS = 16  # of x: up to here torch's own int8 product is faster than unpacking


def quantize(
    weight: torch.Tensor, code_dtype: torch.dtype, block_size: int, per_tensor: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes `[rows, columns]` and absmax float32 `[rows, blocks]`, or `[1, 1]` when `per_tensor`."""
    rows, columns = weight.shape
    weight = weight.detach()
    codes = torch.empty(rows, columns, dtype=code_dtype, device=weight.device)
    absmax = _absmax(weight, block_size, per_tensor)
    for start, stop in row_tiles(rows, columns, tile_bytes=_SMALL_TILE):
        scaled = _scaled(weight[start:stop], _rows_of(absmax, start, stop), block_size, LIMITS[code_dtype])
        codes[start:stop] = scaled.round_() if code_dtype is torch.int8 else scaled
    return codes, absmax


def dequantize(codes: torch.Tensor, absmax: torch.Tensor, block_size: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the dense matrix; the product is float32, rounded once to `dtype`."""
    rows, columns = codes.shape
    out, unpack = empty_output(codes.shape, dtype, codes.device), row_unpacker(codes, absmax, block_size)
    for start, stop in row_tiles(rows, columns, tile_bytes=_SMALL_TILE):
        if dtype is torch.float32:
            unpack(start, stop, out[start:stop])
        else:
            tile = scratch((stop - start) * columns, torch.float32, codes.device, "dense").view(-1, columns)
            unpack(start, stop, tile)
            out[start:stop] = tile
    return out


def linear(
    x: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, block_size: int, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return `x @ weight.T + bias`."""
    if _torch_has_it(x, codes, absmax):
        return _int8_product(x, codes, absmax, bias)
    return tiled_linear(x, codes.shape[0], row_unpacker(codes, absmax, block_size), bias)


def input_grad(grad: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, block_size: int) -> torch.Tensor:
    """Return `grad @ weight`."""
    rows, columns = codes.shape
    return tiled_input_grad(grad, columns, rows, row_unpacker(codes, absmax, block_size))


def row_unpacker(codes: torch.Tensor, absmax: torch.Tensor, block_size: int) -> UnpackRows:
    """Return what writes rows of the dense weight into a buffer of any floating dtype."""
    scale = absmax * (1 / LIMITS[codes.dtype])

    def unpack(start: int, stop: int, target: torch.Tensor) -> None:
        target.copy_(codes[start:stop])
        scale_blocks_(target, _rows_of(scale, start, stop), block_size)

    return unpack


def _absmax(weight: torch.Tensor, block_size: int, per_tensor: bool) -> torch.Tensor:
    rows, columns = weight.shape
    tiles = row_tiles(rows, columns, tile_bytes=_SMALL_TILE)
    parts = [block_absmax(weight[start:stop].float(), columns if per_tensor else block_size) for start, stop in tiles]
    absmax = torch.cat(parts) if parts else torch.empty(0, blocks_in(columns, block_size), device=weight.device)
    if not per_tensor:
        return absmax
    return absmax.amax().view(1, 1) if absmax.numel() else torch.zeros(1, 1, device=weight.device)


def _scaled(weight: torch.Tensor, absmax: torch.Tensor, block_size: int, limit: float) -> torch.Tensor:
    """Return float32 weights times limit / absmax; blocks too small for that quotient are lifted first."""
    dense = torch.empty(weight.shape, dtype=torch.float32, device=weight.device).copy_(weight)
    lift = torch.where(absmax < _TINY, _LIFT, 1.0)
    if bool((lift != 1.0).any()):
        scale_blocks_(dense, lift, block_size)
    lifted = absmax * lift
    return scale_blocks_(dense, torch.where(lifted > 0, limit / lifted, 0.0), block_size)


def _rows_of(scale: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    return scale if scale.shape[0] == 1 else scale[start:stop]


def _torch_has_it(x: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor) -> bool:
    """Whether torch's own product for int8 weights is the faster way: few rows of bfloat16 on a CPU, one scale a row."""
    few = 0 < x.numel() <= _FEW_ROWS * x.shape[-1]
    plain = codes.dtype is torch.int8 and absmax.shape[1] == 1
    return few and plain and x.dtype is torch.bfloat16 and x.device.type == "cpu"


def _int8_product(
    x: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    rows, columns = codes.shape
    ones = torch.ones(
        rows, dtype=x.dtype
    )  # scales stay float32: as bfloat16 they would shift whole rows by up to 0.4 %
    product = torch.ops.aten._weight_int8pack_mm(x.reshape(-1, columns), codes, ones).float()  # noqa: SLF001 - its only name
    product *= (absmax * (1 / LIMITS[torch.int8])).view(1, -1)
    if bias is not None:
        product += bias
    return product.view(*x.shape[:-1], rows).to(x.dtype)  # a copy, not a view: callers write to it in place
