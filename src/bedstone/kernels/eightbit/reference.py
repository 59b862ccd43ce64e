"""One byte a weight and one absmax a block of a row, in plain torch: int8 and the two float8 types.

    code = round(w * limit / absmax)      limit: 127 for int8, 448 for float8_e4m3fn, 57,344 for float8_e5m2
    w    = code * (absmax / limit)

absmax is divided by the limit, not multiplied by 1 / limit: so the scale comes back unchanged when what was unpacked is packed
again, and GGUF's Q8_0 (blocks of 32), whose scale is a half, comes out exactly. int8 with one block a row is bitsandbytes'
`int8_vectorwise_quant`, bit for bit. Weights and codes `[rows, columns]`, absmax `[rows, blocks]`, or `[1, 1]` for the whole tensor.

References:
    Dettmers, Lewis, Belkada, Zettlemoyer: LLM.int8(), 2022, https://arxiv.org/abs/2208.07339.
    Micikevicius et al.: FP8 Formats for Deep Learning, 2022, https://arxiv.org/abs/2209.05433.
"""

from __future__ import annotations

import torch

from bedstone.core.memory import workspace_buffer
from bedstone.kernels.blocks import block_absmax, rows_of, scale_blocks_
from bedstone.kernels.few_rows import int8_linear, suits_int8_linear
from bedstone.kernels.memory import empty_output
from bedstone.kernels.tiles import TiledWeight, computing_dtype, row_tiles, tiled_input_grad, tiled_linear

LIMITS = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}
"""The largest magnitude of each type of code."""

SMALL_TILE = 2**20
"""Bytes of float32 that are rounded or scaled at a time."""
_TINY = 2.0**-100  # below it, limit / absmax may leave float32
_LIFT = 2.0**64
_LARGEST = torch.finfo(torch.float32).max


def quantize(
    weight: torch.Tensor, code_dtype: torch.dtype, block_size: int, per_tensor: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes `[rows, columns]` and absmax float32 `[rows, blocks]`, or `[1, 1]` when `per_tensor`."""
    weight = weight.detach()
    rows, columns = weight.shape
    codes = torch.empty(rows, columns, dtype=code_dtype, device=weight.device)
    block_size = columns if per_tensor else block_size
    absmax = torch.empty(rows, -(-columns // max(block_size, 1)), dtype=torch.float32, device=weight.device)
    if per_tensor:
        for start, stop in row_tiles(rows, columns, tile_bytes=SMALL_TILE):
            absmax[start:stop] = block_absmax(_dense(weight, start, stop), block_size)
        absmax = absmax.amax().view(1, 1) if absmax.numel() else absmax.new_zeros(1, 1)
    for start, stop in row_tiles(rows, columns, tile_bytes=SMALL_TILE):
        dense = _dense(weight, start, stop)
        if not per_tensor:
            absmax[start:stop] = block_absmax(dense, block_size)
        _scale_to_limit_(dense, rows_of(absmax, start, stop), block_size, LIMITS[code_dtype])
        codes[start:stop] = dense.round_() if code_dtype is torch.int8 else dense
    return codes, absmax


def dequantize(codes: torch.Tensor, absmax: torch.Tensor, block_size: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the dense matrix; the product is float32, rounded once to `dtype`."""
    out = empty_output(codes.shape, dtype, codes.device)
    for start, stop in row_tiles(*codes.shape, tile_bytes=SMALL_TILE):
        dense = out[start:stop] if dtype is torch.float32 else _dense_buffer(codes, start, stop)
        _unscale_(dense.copy_(codes[start:stop]), rows_of(absmax, start, stop), block_size, LIMITS[codes.dtype])
        if dtype is not torch.float32:
            out[start:stop] = dense
    return out


def linear(
    x: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, block_size: int, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return `x @ weight.T + bias`."""
    if few_rows(x, codes, absmax):
        return int8_linear(x, [codes], absmax.view(-1) / LIMITS[torch.int8], bias)
    return tiled_linear(x, _tiled(codes, absmax, block_size, computing_dtype(x)), bias)


def input_grad(grad: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, block_size: int) -> torch.Tensor:
    """Return `grad @ weight`."""
    return tiled_input_grad(grad, _tiled(codes, absmax, block_size, computing_dtype(grad)))


def few_rows(x: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor) -> bool:
    """Return whether `linear` takes torch's own int8 product."""
    return codes.dtype is torch.int8 and absmax.shape[1] == 1 and suits_int8_linear(x)


def scaled_by_row(absmax: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether scales multiply outputs instead of weights; in float16 the sums before that could overflow."""
    return absmax.shape[1] == 1 and dtype in (torch.float32, torch.float64)


def _tiled(codes: torch.Tensor, absmax: torch.Tensor, block_size: int, dtype: torch.dtype) -> TiledWeight:
    rows, columns = codes.shape
    scale = absmax / LIMITS[codes.dtype]
    by_row = scaled_by_row(absmax, dtype)

    def unpack(start: int, stop: int, target: torch.Tensor) -> None:
        target.copy_(codes[start:stop])
        if not by_row:
            scale_blocks_(target, rows_of(scale, start, stop), block_size)

    return TiledWeight(rows, columns, unpack, row_scale=scale.view(-1) if by_row else None)


def _dense(weight: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Return rows as float32 in a buffer that may be written to."""
    return _dense_buffer(weight, start, stop).copy_(weight[start:stop])


def _dense_buffer(matrix: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    shape = (stop - start, matrix.shape[1])
    return workspace_buffer(shape[0] * shape[1], torch.float32, matrix.device, "dense").view(shape)


def _scale_to_limit_(dense: torch.Tensor, absmax: torch.Tensor, block_size: int, limit: float) -> None:
    """Multiply by limit / absmax; blocks too small for that quotient are lifted first."""
    tiny = absmax < _TINY
    if bool(tiny.any()):
        lift = torch.where(tiny, _LIFT, 1.0)
        scale_blocks_(dense, lift, block_size)
        absmax = absmax * lift
        absmax = torch.where(absmax > 0, absmax, torch.inf)  # a block of zeros stays one
    scale_blocks_(dense, limit / absmax, block_size)


def _unscale_(codes: torch.Tensor, absmax: torch.Tensor, block_size: int, limit: float) -> None:
    """Multiply by absmax / limit; where that would be subnormal, and so without bits, by its lifted value and then back."""
    tiny = (absmax < _TINY) & (absmax > 0)
    lift = torch.where(tiny, _LIFT, 1.0) if bool(tiny.any()) else None
    scale = (absmax if lift is None else absmax * lift) / limit
    # Rounded up, the largest scale would make the largest code infinite.
    scale_blocks_(codes, scale.clamp_(max=_LARGEST / limit * (1 - 2**-23)), block_size)
    if lift is not None:
        scale_blocks_(codes, lift.reciprocal_(), block_size)
