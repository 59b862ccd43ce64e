"""Products with a packed weight, a tile of rows at a time: the dense weight never exists as a whole.

A tile is unpacked into a kept buffer of a few MiB that stays in the cache, multiplied, and overwritten by the next one.
This saves more than memory: a fresh weight-sized tensor costs a page fault for each 4 KiB, which takes longer than the
unpacking itself. Work is split by shape alone, so a result does not depend on timing.

A scale that belongs to a whole row need not touch the tile: it multiplies the outputs of that row instead.

    y = (x C^T) s          g W = (g s) C          for W = diag(s) C

Shapes: x `[M, K]`, weight `[N, K]`, output `[M, N]`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bedstone.core.memory import workspace_buffer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TILE_BYTES = 4 * 2**20
"""The most that one tile takes."""


@dataclass(frozen=True)
class TiledWeight:
    """How to read a packed weight a few rows at a time.

    Attributes:
        rows: N.
        columns: K.
        unpack: Called with `start`, `stop` and a contiguous floating buffer `[stop - start, K]`; writes these rows to it.
        align: Tiles start at multiples of this many rows.
        row_scale: `[N]` or `[1]`, what the unpacked rows are still to be multiplied by; `None` for nothing.
    """

    rows: int
    columns: int
    unpack: Callable[[int, int, torch.Tensor], None]
    align: int = 1
    row_scale: torch.Tensor | None = None

    def is_one_tile(self, x: torch.Tensor, dtype: torch.dtype) -> bool:
        """Return whether a product with x in its own dtype is one plain product with `whole`; autocast would cast that."""
        fits = self.row_scale is None and 0 < 4 * self.rows * self.columns <= TILE_BYTES
        return fits and dtype is x.dtype and not torch.is_autocast_enabled(x.device.type)

    def whole(self, like: torch.Tensor) -> torch.Tensor:
        """Return all rows unpacked, in a buffer of the dtype and device of `like` that the next call overwrites."""
        tile = workspace_buffer(self.rows * self.columns, like.dtype, like.device, "tile").view(self.rows, self.columns)
        self.unpack(0, self.rows, tile)
        return tile

    def tiles(self, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Yield start, stop and the unpacked rows, in one buffer that the next tile overwrites."""
        for start, stop in row_tiles(self.rows, self.columns, align=self.align):
            tile = workspace_buffer((stop - start) * self.columns, dtype, device, "tile").view(
                stop - start, self.columns
            )
            self.unpack(start, stop, tile)
            yield start, stop, tile


def tiled_linear(x: torch.Tensor, weight: TiledWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """Return `x @ weight.T + bias`.

    Args:
        x: `[..., K]`, any floating dtype.
        weight: `[N, K]`.
        bias: `[N]` or None.

    Returns:
        `[..., N]` in the dtype of `x`.
    """
    dtype = computing_dtype(x)
    if weight.is_one_tile(x, dtype) and (bias is None or bias.dtype is dtype):
        return torch.nn.functional.linear(x, weight.whole(x), bias)
    x_MK = as_rows(x).to(dtype)  # noqa: N806 - the shape suffix of the legend
    out_MN = x_MK.new_empty(x_MK.shape[0], weight.rows)  # noqa: N806
    for start, stop, tile in weight.tiles(dtype, x.device):
        torch.mm(x_MK, tile.t(), out=out_MN[:, start:stop])
    if weight.row_scale is not None:
        out_MN.mul_(weight.row_scale)
    if bias is not None:
        out_MN.add_(bias)
    return out_MN.to(x.dtype).view(*x.shape[:-1], weight.rows)


def tiled_input_grad(grad: torch.Tensor, weight: TiledWeight) -> torch.Tensor:
    """Return `grad @ weight`, the gradient of `tiled_linear` with respect to `x`.

    Args:
        grad: `[..., N]`, any floating dtype.
        weight: `[N, K]`.

    Returns:
        `[..., K]` in the dtype of `grad`.
    """
    dtype = computing_dtype(grad)
    if weight.is_one_tile(grad, dtype):
        return torch.matmul(grad, weight.whole(grad))
    grad_MN = as_rows(grad).to(dtype)  # noqa: N806
    if weight.row_scale is not None:
        grad_MN = grad_MN * weight.row_scale  # noqa: N806
    out_MK = grad_MN.new_empty(grad_MN.shape[0], weight.columns)  # noqa: N806
    if not weight.rows:
        out_MK.zero_()
    for start, stop, tile in weight.tiles(dtype, grad.device):
        torch.addmm(out_MK, grad_MN[:, start:stop], tile, beta=int(start > 0), out=out_MK)
    return out_MK.to(grad.dtype).view(*grad.shape[:-1], weight.columns)


def product_workspace(
    x: torch.Tensor, rows: int, columns: int, *, align: int = 1, unpack_bytes: int = 0, scaled: bool = False
) -> int:
    """Return the bytes that a product of x and a tiled weight takes besides its result; see `library.workspace_bytes`.

    Args:
        x: The first argument of `tiled_linear` or `tiled_input_grad`.
        rows: N.
        columns: K.
        align: As in `TiledWeight`.
        unpack_bytes: What `unpack` takes for each element of a tile.
        scaled: Whether `tiled_input_grad` multiplies row scales.
    """
    dtype, width = computing_dtype(x), x.shape[-1]
    inputs = math.prod(x.shape[:-1])
    tile = min(rows, rows_in_tile(columns, align=align)) * columns
    converted = inputs * (rows + columns) * dtype.itemsize if dtype != x.dtype else 0
    vendor = 0
    if dtype is torch.bfloat16 and x.device.type == "cpu":  # oneDNN sorts what it multiplies, and widens odd sizes
        vendor = 8 * tile + 4 * inputs * (rows + columns) + 2**17
    return tile * (dtype.itemsize + unpack_bytes) + converted + vendor + scaled * inputs * width * dtype.itemsize


def row_tiles(rows: int, columns: int, *, align: int = 1, tile_bytes: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield start and stop of tiles of whole rows.

    Args:
        rows: Rows of the matrix.
        columns: Elements a row, 4 bytes each.
        align: Every start is a multiple of this many rows.
        tile_bytes: The size to stay below, if `align` lets it; `None` for `TILE_BYTES`.

    >>> list(row_tiles(10, 4, align=2, tile_bytes=4 * 4 * 5))
    [(0, 4), (4, 8), (8, 10)]
    """
    step = rows_in_tile(columns, align=align, tile_bytes=tile_bytes)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def rows_in_tile(columns: int, *, align: int = 1, tile_bytes: int | None = None) -> int:
    """Return how many rows a tile of `row_tiles` has; the last one may have fewer.

    >>> rows_in_tile(4096), rows_in_tile(576, align=4, tile_bytes=2**20)
    (256, 452)
    """
    fitting = max((tile_bytes or TILE_BYTES) // max(4 * columns, 1), 1)
    return max(fitting // align, 1) * align


def row_alignment(columns: int, block_size: int) -> int:
    """Return the smallest number of rows that ends where a block ends, for blocks that run on across rows.

    >>> row_alignment(576, 64), row_alignment(96, 64)
    (1, 2)
    """
    return block_size // math.gcd(columns, block_size) if columns else 1


def as_rows(x: torch.Tensor) -> torch.Tensor:
    """Return `[..., K]` as `[M, K]`.

    >>> as_rows(torch.ones(2, 3, 4)).shape, as_rows(torch.ones(4)).shape, as_rows(torch.ones(5, 0)).shape
    (torch.Size([6, 4]), torch.Size([1, 4]), torch.Size([5, 0]))
    """
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def computing_dtype(x: torch.Tensor) -> torch.dtype:
    """Return the dtype to multiply in: x's own, except on a CPU that is slower in it, where it is float32.

    float16 always is; bfloat16 unless the CPU multiplies it itself (AVX-512 BF16, AMX).

    >>> computing_dtype(torch.ones(1, dtype=torch.float16))
    torch.float32
    """
    if x.device.type != "cpu" or x.dtype not in (torch.float16, torch.bfloat16):
        return x.dtype
    return x.dtype if x.dtype is torch.bfloat16 and multiplies_bfloat16() else torch.float32


@functools.cache
def multiplies_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 itself."""
    return torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 - the only way to ask
