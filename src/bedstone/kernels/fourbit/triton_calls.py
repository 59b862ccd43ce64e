"""Four bits and one scale a block, in Triton; the same bits as `reference.py`, sums in another order.

Scales that are packed themselves are unpacked first, by a kernel of their own: a 64th of the weight.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bedstone.kernels import layouts
from bedstone.kernels.fourbit import reference
from bedstone.kernels.triton import triton_dense, triton_products
from bedstone.kernels.triton.packed import PackedWeight

if TYPE_CHECKING:
    import torch


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
    count = math.prod(shape)
    one_row = PackedWeight(
        "nibbles",
        packed.contiguous(),
        _scales(absmax, nested_absmax, offset),
        rows=1,
        columns=count,
        row_bytes=-(-count // 2),
        block_size=block_size,
        table=layouts.code_table(code, packed.device),
    )
    return triton_dense.dense(one_row, shape, dtype)


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
    scales = _scales(absmax, nested_absmax, offset)
    return triton_products.linear(x, _weight(packed, scales, shape, block_size, code), bias)


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
    scales = _scales(absmax, nested_absmax, offset)
    return triton_products.input_grad(grad, _weight(packed, scales, shape, block_size, code))


def _scales(absmax: torch.Tensor, nested_absmax: torch.Tensor | None, offset: torch.Tensor | None) -> torch.Tensor:
    if nested_absmax is None or offset is None:
        return absmax.contiguous()
    dynamic = reference.dynamic_table(absmax.device)
    return triton_dense.nested_scales(absmax, nested_absmax, offset, dynamic, reference.NESTED_BLOCK)


def _weight(packed: torch.Tensor, scales: torch.Tensor, shape: list[int], block_size: int, code: str) -> PackedWeight:
    rows, columns = shape
    odd = columns % 2
    return PackedWeight(
        "odd nibbles" if odd else "nibbles",
        packed.contiguous(),
        scales,
        rows,
        columns,
        row_bytes=columns if odd else columns // 2,
        block_size=block_size,
        table=layouts.code_table(code, packed.device),
    )
