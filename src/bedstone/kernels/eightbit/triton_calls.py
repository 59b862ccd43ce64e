"""One byte a weight and one absmax a block of a row, in Triton; the same bits as `reference.py`, sums in another order."""

from __future__ import annotations

import torch

from bedstone.kernels.eightbit.reference import LIMITS
from bedstone.kernels.triton import triton_dense, triton_products
from bedstone.kernels.triton.packed import PackedWeight, steps

_FORMATS = {torch.int8: "int8", torch.float8_e4m3fn: "e4m3", torch.float8_e5m2: "e5m2"}


def dequantize(codes: torch.Tensor, absmax: torch.Tensor, block_size: int, dtype: torch.dtype) -> torch.Tensor:
    """As `reference.dequantize`."""
    return triton_dense.dense(_weight(codes, absmax, block_size), codes.shape, dtype)


def linear(
    x: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, block_size: int, bias: torch.Tensor | None
) -> torch.Tensor:
    """As `reference.linear`."""
    return triton_products.linear(x, _weight(codes, absmax, block_size), bias)


def input_grad(grad: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, block_size: int) -> torch.Tensor:
    """As `reference.input_grad`."""
    return triton_products.input_grad(grad, _weight(codes, absmax, block_size))


def _weight(codes: torch.Tensor, absmax: torch.Tensor, block_size: int) -> PackedWeight:
    rows, columns = codes.shape
    shared, row_step = steps(absmax, block_size)
    return PackedWeight(
        _FORMATS[codes.dtype],
        codes.contiguous().view(torch.uint8),
        absmax.contiguous(),
        rows,
        columns,
        row_bytes=columns,
        block_size=shared,
        row_step=row_step,
        limit=LIMITS[codes.dtype],
    )
