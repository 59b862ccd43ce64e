"""Four bits and one scale a block, by the compiled CPU library; the same bits as `reference.py`, sums in another order.

Few rows of x are multiplied while the weight is read, exactly, in float32; of more rows a tile of the weight is unpacked at a time and
given to torch's matrix product, as in `reference.py`.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from bedstone.kernels import layouts
from bedstone.kernels.fourbit import reference
from bedstone.kernels.memory import empty_output
from bedstone.kernels.native.calls import bias_fits, pointer
from bedstone.kernels.native.library import DTYPES, library
from bedstone.kernels.native.rounded import in_groups, in_squares, panel_memory, scratch_memory
from bedstone.kernels.tiles import TiledWeight, tiled_input_grad, tiled_linear

FEW_INPUTS = 8
"""Rows of x up to which the weight is multiplied as it is read."""


def quantize(weight: torch.Tensor, block_size: int, code: str) -> tuple[torch.Tensor, torch.Tensor]:
    """As `reference.quantize`."""
    weight = weight.detach().contiguous()
    count = weight.numel()
    packed = empty_output([-(-count // 2)], torch.uint8, weight.device)
    absmax = torch.empty(-(-count // block_size), dtype=torch.float32)
    midpoints, codes = _search(code)
    library().bs_quantize_4bit(
        *(weight.data_ptr(), DTYPES[weight.dtype], count, block_size, pointer(midpoints), pointer(codes)),
        *(packed.data_ptr(), absmax.data_ptr(), torch.get_num_threads()),
    )
    return packed, absmax


def dequantize_absmax(
    absmax: torch.Tensor, nested_absmax: torch.Tensor | None, offset: torch.Tensor | None
) -> torch.Tensor:
    """As `reference.dequantize_absmax`."""
    if nested_absmax is None or offset is None:
        return absmax
    absmax, nested_absmax = absmax.contiguous(), nested_absmax.contiguous()
    out = torch.empty(absmax.shape, dtype=torch.float32)
    table = reference.dynamic_table(torch.device("cpu"))
    library().bs_dequantize_absmax(
        *(pointer(absmax), pointer(nested_absmax), offset.item(), table.data_ptr()),
        *(absmax.numel(), out.data_ptr(), torch.get_num_threads()),
    )
    return out


def dequantize(
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested_absmax: torch.Tensor | None,
    offset: torch.Tensor | None,
    shape: list[int],
    block_size: int,
    code: str,
    dtype: torch.dtype,
) -> torch.Tensor:
    """As `reference.dequantize`."""
    out = empty_output(shape, dtype, packed.device)
    _unpack(packed, dequantize_absmax(absmax, nested_absmax, offset), 0, out, block_size, code)
    return out


def linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested_absmax: torch.Tensor | None,
    offset: torch.Tensor | None,
    shape: list[int],
    block_size: int,
    code: str,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """As `reference.linear`."""
    columns = shape[1]
    few = columns > 0 and columns % 2 == 0 and x.numel() <= FEW_INPUTS * columns
    scales = dequantize_absmax(absmax, nested_absmax, offset)
    if not few or not bias_fits(bias, x):
        return tiled_linear(x, _tiled(packed, scales, shape, block_size, code), bias)
    return _multiplied(library().bs_linear_4bit, x, packed, scales, shape, block_size, code, bias)


def linear_rounded(
    x: torch.Tensor,
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested_absmax: torch.Tensor | None,
    offset: torch.Tensor | None,
    shape: list[int],
    block_size: int,
    code: str,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """As `reference.linear`, with inputs rounded to 15 bits a group of 64 columns; what is not made of such groups is computed exactly."""
    if not in_groups(shape[1], block_size) or not bias_fits(bias, x):
        return linear(x, packed, absmax, nested_absmax, offset, shape, block_size, code, bias)
    scales = dequantize_absmax(absmax, nested_absmax, offset)
    kept = scratch_memory(x.numel() // shape[1], shape[1])
    return _multiplied(library().bs_linear_4bit_rounded, x, packed, scales, shape, block_size, code, bias, kept)


def linear_int8(
    x: torch.Tensor,
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested_absmax: torch.Tensor | None,
    offset: torch.Tensor | None,
    shape: list[int],
    block_size: int,
    code: str,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """As `reference.linear`, with inputs and code book rounded to 8 bits; what is not made of such groups is computed exactly."""
    if not in_groups(shape[1], block_size) or not bias_fits(bias, x):
        return linear(x, packed, absmax, nested_absmax, offset, shape, block_size, code, bias)
    scales = dequantize_absmax(absmax, nested_absmax, offset)
    return _multiplied(library().bs_linear_4bit_int8, x, packed, scales, shape, block_size, code, bias)


def input_grad(
    grad: torch.Tensor,
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested_absmax: torch.Tensor | None,
    offset: torch.Tensor | None,
    shape: list[int],
    block_size: int,
    code: str,
) -> torch.Tensor:
    """As `reference.input_grad`."""
    scales = dequantize_absmax(absmax, nested_absmax, offset)
    return tiled_input_grad(grad, _tiled(packed, scales, shape, block_size, code))


def input_grad_rounded(
    grad: torch.Tensor,
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested_absmax: torch.Tensor | None,
    offset: torch.Tensor | None,
    shape: list[int],
    block_size: int,
    code: str,
) -> torch.Tensor:
    """As `reference.input_grad`, with gradient and weight rounded to 13 bits in groups of 64; what is not made of such groups is exact."""
    if not in_squares(shape, block_size):
        return input_grad(grad, packed, absmax, nested_absmax, offset, shape, block_size, code)
    rows, columns = shape
    scales = dequantize_absmax(absmax, nested_absmax, offset)
    grad, packed, scales = grad.contiguous(), packed.contiguous(), scales.contiguous()
    out = grad.new_empty(*grad.shape[:-1], columns)
    inputs = grad.numel() // rows
    library().bs_input_grad_4bit_rounded(
        *(grad.data_ptr(), DTYPES[grad.dtype], inputs, pointer(packed), pointer(scales), _table(code), block_size),
        *(rows, columns, out.data_ptr(), panel_memory(inputs, rows), torch.get_num_threads()),
    )
    return out


def _multiplied(
    function: Any,
    x: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    shape: list[int],
    block_size: int,
    code: str,
    bias: torch.Tensor | None,
    *scratch: int | None,
) -> torch.Tensor:
    rows, columns = shape
    x, packed, scales = x.contiguous(), packed.contiguous(), scales.contiguous()
    out = x.new_empty(*x.shape[:-1], rows)
    function(
        *(x.data_ptr(), DTYPES[x.dtype], x.numel() // columns, pointer(packed), pointer(scales), _table(code)),
        *(block_size, rows, columns, pointer(bias, "bias"), out.data_ptr(), *scratch, torch.get_num_threads()),
    )
    return out


def _tiled(packed: torch.Tensor, scales: torch.Tensor, shape: list[int], block_size: int, code: str) -> TiledWeight:
    rows, columns = shape

    def unpack(start: int, stop: int, target: torch.Tensor) -> None:
        del stop
        _unpack(packed, scales, start * columns, target, block_size, code)

    return TiledWeight(rows, columns, unpack, align=1 + columns % 2)


def _unpack(
    packed: torch.Tensor, scales: torch.Tensor, start: int, out: torch.Tensor, block_size: int, code: str
) -> None:
    """Write the elements from `start`, an even number, into `out`."""
    packed, scales = packed.contiguous(), scales.contiguous()
    library().bs_dequantize_4bit(
        *(pointer(packed), pointer(scales), _table(code), block_size, start, out.numel()),
        *(out.data_ptr(), DTYPES[out.dtype], torch.get_num_threads()),
    )


@functools.cache
def _table(code: str) -> int:
    return layouts.code_table(code, torch.device("cpu")).data_ptr()


@functools.cache
@torch.inference_mode(mode=False)
def _search(code: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The midpoints between sorted table entries, and the code of each rank."""
    order = torch.tensor(layouts.CODE_TABLES[code], device="cpu").sort(stable=True).indices
    return torch.tensor(reference.midpoints(code), device="cpu"), order.int()
