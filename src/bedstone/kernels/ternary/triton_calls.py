"""Weights of -1, 0 and 1 times a scale, four a byte, in Triton; the same bits as `reference.py`, sums in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.kernels.triton import triton_dense, triton_products
from bedstone.kernels.triton.packed import PackedWeight, steps

if TYPE_CHECKING:
    import torch


def dequantize(
    packed: torch.Tensor, scale: torch.Tensor, shape: list[int], block_size: int, dtype: torch.dtype
) -> torch.Tensor:
    """As `reference.dequantize`."""
    return triton_dense.dense(_weight(packed, scale, shape, block_size), shape, dtype)


def linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    scale: torch.Tensor,
    shape: list[int],
    block_size: int,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """As `reference.linear`."""
    return triton_products.linear(x, _weight(packed, scale, shape, block_size), bias)


def input_grad(
    grad: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor, shape: list[int], block_size: int
) -> torch.Tensor:
    """As `reference.input_grad`."""
    return triton_products.input_grad(grad, _weight(packed, scale, shape, block_size))


def _weight(packed: torch.Tensor, scale: torch.Tensor, shape: list[int], block_size: int) -> PackedWeight:
    rows, columns = shape
    shared, row_step = steps(scale, block_size)
    return PackedWeight(
        "trits",
        packed.contiguous(),
        scale.contiguous(),
        rows,
        columns,
        row_bytes=packed.shape[1],
        block_size=shared,
        row_step=row_step,
    )
