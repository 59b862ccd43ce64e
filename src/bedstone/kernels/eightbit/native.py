"""One byte a weight, by the compiled CPU library; the same bits as `reference.py`, sums in another order."""

from __future__ import annotations

import torch

from bedstone.kernels.eightbit import reference
from bedstone.kernels.memory import empty_output
from bedstone.kernels.native.calls import bias_fits, placed, pointer
from bedstone.kernels.native.library import DTYPES, library
from bedstone.kernels.native.rounded import in_groups, scratch_memory
from bedstone.kernels.tiles import TiledWeight, multiplies_bfloat16, tiled_input_grad, tiled_linear

FEW_INPUTS = 8
"""Rows of x up to which the weight is multiplied as it is read."""
KINDS = {torch.int8: 0, torch.float8_e4m3fn: 1, torch.float8_e5m2: 2}


def quantize(
    weight: torch.Tensor, code_dtype: torch.dtype, block_size: int, per_tensor: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `reference.quantize`."""
    if not weight.numel():
        return reference.quantize(weight, code_dtype, block_size, per_tensor)
    weight = weight.detach().contiguous()
    rows, columns = weight.shape
    block_size = columns if per_tensor else block_size
    codes = empty_output([rows, columns], code_dtype, weight.device)
    absmax = torch.empty((1, 1) if per_tensor else (rows, -(-columns // block_size)), dtype=torch.float32)
    library().bs_quantize_8bit(
        *(weight.data_ptr(), DTYPES[weight.dtype], rows, columns, block_size, KINDS[code_dtype], per_tensor),
        *(codes.data_ptr(), absmax.data_ptr(), torch.get_num_threads()),
    )
    return codes, absmax


def dequantize(codes: torch.Tensor, absmax: torch.Tensor, block_size: int, dtype: torch.dtype) -> torch.Tensor:
    """As `reference.dequantize`."""
    out = empty_output(codes.shape, dtype, codes.device)
    _unpack(codes, absmax, block_size, out)
    return out


def linear(
    x: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, block_size: int, bias: torch.Tensor | None
) -> torch.Tensor:
    """As `reference.linear`."""
    rows, columns = codes.shape
    few = columns > 0 and x.numel() <= FEW_INPUTS * columns
    if takes_torchs_product(x, codes, absmax):
        return reference.linear(x, codes, absmax, block_size, bias)
    if not few or not bias_fits(bias, x):
        return tiled_linear(x, _tiled(codes, absmax, block_size), bias)
    x, codes, absmax = x.contiguous(), codes.contiguous(), absmax.contiguous()
    out = x.new_empty(*x.shape[:-1], rows)
    library().bs_linear_8bit(
        *(x.data_ptr(), DTYPES[x.dtype], x.numel() // columns, pointer(codes), KINDS[codes.dtype], pointer(absmax)),
        *(*placed(absmax), block_size, rows, columns, pointer(bias, "bias"), out.data_ptr(), torch.get_num_threads()),
    )
    return out


def linear_rounded(
    x: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, block_size: int, bias: torch.Tensor | None
) -> torch.Tensor:
    """As `reference.linear` for int8, with inputs rounded to 16 bits a group of 64 columns; blocks that are no such groups exactly."""
    rows, columns = codes.shape
    if not in_groups(columns, block_size) or not bias_fits(bias, x):
        return linear(x, codes, absmax, block_size, bias)
    x, codes, absmax = x.contiguous(), codes.contiguous(), absmax.contiguous()
    out, inputs = x.new_empty(*x.shape[:-1], rows), x.numel() // columns
    library().bs_linear_int8_rounded(
        *(x.data_ptr(), DTYPES[x.dtype], inputs, pointer(codes), pointer(absmax), *placed(absmax), block_size),
        *(
            rows,
            columns,
            pointer(bias, "bias"),
            out.data_ptr(),
            scratch_memory(inputs, columns),
            torch.get_num_threads(),
        ),
    )
    return out


def takes_torchs_product(x: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor) -> bool:
    """Return whether torch's own int8 product is faster: several rows of bfloat16, on a CPU that multiplies it itself."""
    return multiplies_bfloat16() and x.numel() > x.shape[-1] and reference.few_rows(x, codes, absmax)


def input_grad(grad: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, block_size: int) -> torch.Tensor:
    """As `reference.input_grad`."""
    return tiled_input_grad(grad, _tiled(codes, absmax, block_size))


def _tiled(codes: torch.Tensor, absmax: torch.Tensor, block_size: int) -> TiledWeight:
    rows, columns = codes.shape

    def unpack(start: int, stop: int, target: torch.Tensor) -> None:
        part = absmax if absmax.shape[0] == 1 else absmax[start:stop]
        _unpack(codes[start:stop], part, block_size, target)

    return TiledWeight(rows, columns, unpack)


def _unpack(codes: torch.Tensor, absmax: torch.Tensor, block_size: int, out: torch.Tensor) -> None:
    codes, absmax = codes.contiguous(), absmax.contiguous()
    rows, columns = codes.shape
    library().bs_dequantize_8bit(
        *(pointer(codes), KINDS[codes.dtype], pointer(absmax), *placed(absmax), max(block_size, 1)),
        *(rows, columns, out.data_ptr(), DTYPES[out.dtype], torch.get_num_threads()),
    )
