"""Trits, by the compiled CPU library; the same bits as `reference.py`, sums in another order.

The scale is a mean over the tensor, whose last bit depends on the order of its sum, so torch computes it for both.
"""

from __future__ import annotations

from typing import Any

import torch

from bedstone.kernels import layouts
from bedstone.kernels.memory import empty_output
from bedstone.kernels.native.calls import bias_fits, placed, pointer
from bedstone.kernels.native.library import DTYPES, library
from bedstone.kernels.native.rounded import GROUP, scratch_memory
from bedstone.kernels.ternary import reference
from bedstone.kernels.tiles import TiledWeight, tiled_input_grad, tiled_linear

FEW_INPUTS = 16
"""Rows of x up to which the weight is multiplied as it is read."""


def quantize(weight: torch.Tensor, block_size: int, per_tensor: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """As `reference.quantize`."""
    weight = weight.detach()
    rows, columns = weight.shape
    inverse = reference.inverse_scale(weight, block_size, per_tensor)
    packed = empty_output([rows, layouts.trit_bytes(columns)], torch.uint8, weight.device)
    weight = weight.contiguous()
    library().bs_quantize_ternary(
        *(weight.data_ptr(), DTYPES[weight.dtype], rows, columns, inverse.data_ptr(), *placed(inverse)),
        *(max(block_size, 1), packed.data_ptr(), torch.get_num_threads()),
    )
    return packed, 1 / inverse


def dequantize(
    packed: torch.Tensor, scale: torch.Tensor, shape: list[int], block_size: int, dtype: torch.dtype
) -> torch.Tensor:
    """As `reference.dequantize`."""
    out = empty_output(shape, dtype, packed.device)
    _unpack(packed, scale, block_size, out)
    return out


def linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    scale: torch.Tensor,
    shape: list[int],
    block_size: int,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """As `reference.linear`."""
    inputs = x.numel() // shape[1] if shape[1] else 0
    if inputs > FEW_INPUTS or not _is_plain(x, scale, bias):
        return tiled_linear(x, _tiled(packed, scale, shape, block_size), bias)
    return _multiplied(library().bs_linear_ternary, x, packed, scale, shape, bias)


def linear_rounded(
    x: torch.Tensor,
    packed: torch.Tensor,
    scale: torch.Tensor,
    shape: list[int],
    block_size: int,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """As `reference.linear`, with each row of x rounded to 15 bits; with one scale a block exactly."""
    if not _is_plain(x, scale, bias):
        return linear(x, packed, scale, shape, block_size, bias)
    inputs = x.numel() // shape[1]
    panel = scratch_memory(inputs, shape[1]) if shape[1] % GROUP == 0 else None
    return _multiplied(library().bs_linear_ternary_rounded, x, packed, scale, shape, bias, panel)


def linear_int8(
    x: torch.Tensor,
    packed: torch.Tensor,
    scale: torch.Tensor,
    shape: list[int],
    block_size: int,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """As `reference.linear`, with each row of x rounded to 8 bits, as BitNet does; with one scale a block exactly."""
    if not _is_plain(x, scale, bias):
        return linear(x, packed, scale, shape, block_size, bias)
    return _multiplied(library().bs_linear_ternary_int8, x, packed, scale, shape, bias)


def _is_plain(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether the library can multiply: one scale a row or for all, and a bias like x."""
    return x.shape[-1] > 0 and scale.shape[1] == 1 and bias_fits(bias, x)


def _multiplied(
    function: Any,
    x: torch.Tensor,
    packed: torch.Tensor,
    scale: torch.Tensor,
    shape: list[int],
    bias: torch.Tensor | None,
    *scratch: int | None,
) -> torch.Tensor:
    rows, columns = shape
    x, packed, scale = x.contiguous(), packed.contiguous(), scale.contiguous()
    out = x.new_empty(*x.shape[:-1], rows)
    function(
        *(x.data_ptr(), DTYPES[x.dtype], x.numel() // columns, pointer(packed), pointer(scale), placed(scale)[0]),
        *(rows, columns, pointer(bias, "bias"), out.data_ptr(), *scratch, torch.get_num_threads()),
    )
    return out


def input_grad(
    grad: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor, shape: list[int], block_size: int
) -> torch.Tensor:
    """As `reference.input_grad`."""
    return tiled_input_grad(grad, _tiled(packed, scale, shape, block_size))


def _tiled(packed: torch.Tensor, scale: torch.Tensor, shape: list[int], block_size: int) -> TiledWeight:
    def unpack(start: int, stop: int, target: torch.Tensor) -> None:
        _unpack(packed[start:stop], scale if scale.shape[0] == 1 else scale[start:stop], block_size, target)

    return TiledWeight(shape[0], shape[1], unpack)


def _unpack(packed: torch.Tensor, scale: torch.Tensor, block_size: int, out: torch.Tensor) -> None:
    packed, scale = packed.contiguous(), scale.contiguous()
    rows, columns = out.shape
    library().bs_dequantize_ternary(
        *(pointer(packed), pointer(scale), *placed(scale), max(block_size, 1)),
        *(rows, columns, out.data_ptr(), DTYPES[out.dtype], torch.get_num_threads()),
    )
