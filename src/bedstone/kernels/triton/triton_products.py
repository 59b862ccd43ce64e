"""Products with a packed weight that is unpacked in registers: the dense weight exists nowhere.

    few_kernel     y = x W^T + b of one token, or a few: each program reads some rows of W once, multiplied in float32
    many_kernel    y = x W^T + b by tiles, `tl.dot`
    grad_kernel    dX = dY W by tiles, `tl.dot`

Weights are float32 in `few_kernel`. Before `tl.dot` they are rounded to the dtype of x, as the weight of a dense layer is; sums are float32, and
float32 inputs are multiplied as such, never as TF32. How large tiles are was chosen without a GPU at hand.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
# Triton's types are those of the compiled language, which a checker of Python cannot know.

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from bedstone.kernels.tiles import as_rows
from bedstone.kernels.triton.launch import FUSED, on_device_of
from bedstone.kernels.triton.packed import PLANES, PackedWeight
from bedstone.kernels.triton.triton_decode import column_of, load_bytes, load_scales, values_of

if TYPE_CHECKING:
    import torch

FEW_INPUTS = 4
"""Rows of x up to which every program multiplies whole rows of the weight with one of them."""
FEW_TILE = {"ROWS": 8, "PLACES": 256}
"""Rows, and bytes of a row, that a program of `few_kernel` reads at a time."""
TILE = {"INPUTS": 32, "ROWS": 64, "PLACES": 32}
"""Of the other two: rows of x, rows of the weight, bytes of a row."""


@triton.jit
def few_kernel(  # noqa: ANN201
    x, codes, scales, table, bias, out,  # noqa: ANN001
    rows, columns, row_bytes, row_step, tiles,  # noqa: ANN001
    FORMAT: tl.constexpr, BLOCK_SIZE: tl.constexpr, PLANES: tl.constexpr, LIMIT: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr, PLACES: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Some outputs of one row of x."""
    m = (tl.program_id(0) // tiles).to(tl.int64)
    n = (tl.program_id(0) % tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    total = tl.zeros([ROWS, PLACES], tl.float32)
    for start in range(0, row_bytes, PLACES):
        place = start + tl.arange(0, PLACES)[None, :]
        here = (n < rows) & (place < row_bytes)
        byte = load_bytes(codes, n, place, columns, row_bytes, here, FORMAT)
        for plane in tl.static_range(PLANES):
            column = column_of(place, plane, columns, FORMAT)
            mask = here & (column < columns)
            scale = load_scales(scales, n, column, columns, row_step, mask, FORMAT, BLOCK_SIZE)
            value = values_of(byte, scale, n, place, plane, columns, table, FORMAT, LIMIT)
            some = tl.load(x + m * columns + column, mask=(place < row_bytes) & (column < columns), other=0.0)
            total += value * some.to(tl.float32)
    result = tl.sum(total, axis=1)[:, None]
    if bias is not None:
        result += tl.load(bias + n, mask=n < rows, other=0.0).to(tl.float32)
    tl.store(out + m * rows + n, result.to(out.dtype.element_ty), mask=n < rows)


@triton.jit
def many_kernel(  # noqa: ANN201
    x, codes, scales, table, bias, out,  # noqa: ANN001
    inputs, rows, columns, row_bytes, row_step, tiles,  # noqa: ANN001
    FORMAT: tl.constexpr, BLOCK_SIZE: tl.constexpr, PLANES: tl.constexpr, LIMIT: tl.constexpr,  # noqa: N803
    INPUTS: tl.constexpr, ROWS: tl.constexpr, PLACES: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """One tile of the outputs."""
    m = (tl.program_id(0) // tiles).to(tl.int64) * INPUTS + tl.arange(0, INPUTS)[:, None]
    first = (tl.program_id(0) % tiles).to(tl.int64) * ROWS
    n = first + tl.arange(0, ROWS)[None, :]
    total = tl.zeros([INPUTS, ROWS], tl.float32)
    for start in range(0, row_bytes, PLACES):
        down, across = start + tl.arange(0, PLACES)[:, None], start + tl.arange(0, PLACES)[None, :]
        here = (n < rows) & (down < row_bytes)
        byte = load_bytes(codes, n, down, columns, row_bytes, here, FORMAT)
        for plane in tl.static_range(PLANES):
            column = column_of(down, plane, columns, FORMAT)
            mask = here & (column < columns)
            scale = load_scales(scales, n, column, columns, row_step, mask, FORMAT, BLOCK_SIZE)
            value = values_of(byte, scale, n, down, plane, columns, table, FORMAT, LIMIT)
            column = column_of(across, plane, columns, FORMAT)
            mask = (m < inputs) & (across < row_bytes) & (column < columns)
            some = tl.load(x + m * columns + column, mask=mask, other=0.0)
            total = tl.dot(some, value.to(some.dtype), total, input_precision="ieee")
    if bias is not None:
        total += tl.load(bias + n, mask=n < rows, other=0.0).to(tl.float32)
    tl.store(out + m * rows + n, total.to(out.dtype.element_ty), mask=(m < inputs) & (n < rows))


@triton.jit
def grad_kernel(  # noqa: ANN201
    grad, codes, scales, table, out,  # noqa: ANN001
    inputs, rows, columns, row_bytes, row_step, tiles,  # noqa: ANN001
    FORMAT: tl.constexpr, BLOCK_SIZE: tl.constexpr, PLANES: tl.constexpr, LIMIT: tl.constexpr,  # noqa: N803
    INPUTS: tl.constexpr, ROWS: tl.constexpr, PLACES: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """One tile of the gradient, of the columns of one plane."""
    plane = tl.program_id(0) % PLANES
    tile = tl.program_id(0) // PLANES
    m = (tile // tiles).to(tl.int64) * INPUTS + tl.arange(0, INPUTS)[:, None]
    place = tile % tiles * PLACES + tl.arange(0, PLACES)[None, :]
    column = column_of(place, plane, columns, FORMAT)
    inside = (place < row_bytes) & (column < columns)
    total = tl.zeros([INPUTS, PLACES], tl.float32)
    for start in range(0, rows, ROWS):
        down, across = start + tl.arange(0, ROWS)[:, None].to(tl.int64), start + tl.arange(0, ROWS)[None, :]
        mask = (down < rows) & inside
        byte = load_bytes(codes, down, place, columns, row_bytes, mask, FORMAT)
        scale = load_scales(scales, down, column, columns, row_step, mask, FORMAT, BLOCK_SIZE)
        value = values_of(byte, scale, down, place, plane, columns, table, FORMAT, LIMIT)
        some = tl.load(grad + m * rows + across, mask=(m < inputs) & (across < rows), other=0.0)
        total = tl.dot(some, value.to(some.dtype), total, input_precision="ieee")
    tl.store(out + m * columns + column, total.to(out.dtype.element_ty), mask=(m < inputs) & inside)


def linear(x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """Return `x @ weight.T + bias`.

    Args:
        x: `[..., K]`.
        weight: `[N, K]`.
        bias: `[N]` or None.

    Returns:
        `[..., N]` in the dtype of `x`.
    """
    flat = as_rows(x).contiguous()
    out = x.new_empty(len(flat), weight.rows)
    bias = None if bias is None else bias.contiguous()
    if out.numel():
        few = len(flat) <= FEW_INPUTS
        blocks = FEW_TILE if few else TILE
        tiles = triton.cdiv(weight.rows, blocks["ROWS"])
        above = len(flat) if few else triton.cdiv(len(flat), blocks["INPUTS"])
        kernel, count = (few_kernel, ()) if few else (many_kernel, (len(flat),))
        with on_device_of(x):
            kernel[above * tiles,](
                *(flat, weight.codes, weight.scales, weight.table, bias, out, *count),
                *_told(weight, tiles),
                **blocks,
                **FUSED,
            )
    return out.view(*x.shape[:-1], weight.rows)


def input_grad(grad: torch.Tensor, weight: PackedWeight) -> torch.Tensor:
    """Return `grad @ weight`.

    Args:
        grad: `[..., N]`.
        weight: `[N, K]`.

    Returns:
        `[..., K]` in the dtype of `grad`.
    """
    flat = as_rows(grad).contiguous()
    out = grad.new_empty(len(flat), weight.columns)
    if out.numel():
        tiles = triton.cdiv(weight.row_bytes, TILE["PLACES"])
        grid = triton.cdiv(len(flat), TILE["INPUTS"]) * tiles * PLANES[weight.format]
        with on_device_of(grad):
            grad_kernel[grid,](
                *(flat, weight.codes, weight.scales, weight.table, out, len(flat)),
                *_told(weight, tiles),
                **TILE,
                **FUSED,
            )
    return out.view(*grad.shape[:-1], weight.columns)


def _told(weight: PackedWeight, tiles: int) -> tuple[int | float | str, ...]:
    return (
        *(weight.rows, weight.columns, weight.row_bytes, weight.row_step, tiles),
        *(weight.format, weight.block_size, PLANES[weight.format], weight.limit),
    )
