"""Packed to dense, bit for bit as in plain torch; and the scales that are packed themselves."""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
# Triton's types are those of the compiled language, which a checker of Python cannot know.

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from bedstone.kernels.triton.launch import UNFUSED, on_device_of
from bedstone.kernels.triton.packed import PLANES, PackedWeight
from bedstone.kernels.triton.triton_decode import column_of, load_bytes, load_scales, values_of

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK = 1024
"""Bytes that one program unpacks."""


@triton.jit
def dense_kernel(  # noqa: ANN201
    codes, scales, table, out,  # noqa: ANN001
    columns, row_bytes, row_step, blocks,  # noqa: ANN001
    FORMAT: tl.constexpr, BLOCK_SIZE: tl.constexpr, PLANES: tl.constexpr, LIMIT: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """One block of bytes of one row: `out[row, column] = value`."""
    row = (tl.program_id(0) // blocks).to(tl.int64)
    place = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    byte = load_bytes(codes, row, place, columns, row_bytes, place < row_bytes, FORMAT)
    for plane in tl.static_range(PLANES):
        column = column_of(place, plane, columns, FORMAT)
        mask = (place < row_bytes) & (column < columns)
        scale = load_scales(scales, row, column, columns, row_step, mask, FORMAT, BLOCK_SIZE)
        value = values_of(byte, scale, row, place, plane, columns, table, FORMAT, LIMIT)
        tl.store(out + row * columns + column, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def absmax_kernel(absmax, nested, offset, dynamic, out, count, GROUP: tl.constexpr, BLOCK: tl.constexpr):  # noqa: ANN001, ANN201, N803
    """One block of scales: `out = dynamic[byte] * nested + offset`."""
    where = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = where < count
    byte = tl.load(absmax + where, mask=mask, other=0).to(tl.int32)
    value = tl.load(dynamic + byte) * tl.load(nested + where // GROUP, mask=mask, other=0.0)
    tl.store(out + where, value + tl.load(offset), mask=mask)


def dense(weight: PackedWeight, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return the dense weight.

    Args:
        weight: Of nibbles, all of it as one row.
        shape: Of the result, as many elements as rows times columns.
        dtype: float32, bfloat16 or float16.
    """
    out = torch.empty(tuple(shape), dtype=dtype, device=weight.codes.device)
    if out.numel():
        blocks = triton.cdiv(weight.row_bytes, BLOCK)
        with on_device_of(out):
            dense_kernel[weight.rows * blocks,](
                *(weight.codes, weight.scales, weight.table, out, weight.columns, weight.row_bytes),
                *(weight.row_step, blocks),
                *(weight.format, weight.block_size, PLANES[weight.format], weight.limit, BLOCK),
                **UNFUSED,
            )
    return out


def nested_scales(
    absmax: torch.Tensor, nested: torch.Tensor, offset: torch.Tensor, dynamic: torch.Tensor, group: int
) -> torch.Tensor:
    """Return scales as float32.

    Args:
        absmax: uint8 `[blocks]`.
        nested: float32 `[ceil(blocks / group)]`.
        offset: float32 `[]`.
        dynamic: float32 `[256]`, what the bytes stand for.
        group: Bytes that share an element of `nested`.
    """
    out = torch.empty(absmax.shape, dtype=torch.float32, device=absmax.device)
    if out.numel():
        with on_device_of(out):
            grid = (triton.cdiv(out.numel(), BLOCK),)
            absmax_kernel[grid](
                absmax.contiguous(), nested.contiguous(), offset, dynamic, out, out.numel(), group, BLOCK, **UNFUSED
            )
    return out
