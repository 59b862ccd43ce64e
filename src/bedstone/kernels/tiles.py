"""Products with a packed weight, a tile of rows at a time: the dense weight never exists as a whole.

A tile is unpacked into a kept float32 buffer of a few MiB that stays in the cache, multiplied, and overwritten by the
next one. This saves more than memory: a fresh weight-sized tensor costs a page fault for each 4 KiB, which takes longer
than the unpacking itself. Work is split by shape alone, so results do not depend on threads or timing.

Shapes: x `[M, K]`, weight `[N, K]`, output `[M, N]`.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    UnpackRows = Callable[[int, int, torch.Tensor], None]
    """Writes rows start to stop of the dense weight into a float32 or computing-dtype buffer `[stop - start, K]`."""

TILE_BYTES = 4 * 2**20
"""The most that one tile takes; a declared workspace of every linear operation here."""

_kept = threading.local()


def scratch(elements: int, dtype: torch.dtype, device: torch.device, purpose: str) -> torch.Tensor:
    """Return a buffer that is kept for this thread and overwritten by the next call with the same purpose.

    Args:
        elements: How many are needed; the buffer grows to the largest request.
        dtype: Of the elements.
        device: On the CPU the buffer is kept; elsewhere the device's caching allocator does that.
        purpose: Buffers that live at the same time need different names.

    Returns:
        A flat tensor of exactly `elements` elements, contents undefined.
    """
    if device.type != "cpu":
        return torch.empty(elements, dtype=dtype, device=device)
    buffers: dict[tuple[str, torch.dtype], torch.Tensor] = _kept.__dict__.setdefault("buffers", {})
    buffer = buffers.get((purpose, dtype))
    if buffer is None or buffer.numel() < elements:
        with torch.inference_mode(mode=False):  # kept for later calls, which may train
            buffer = buffers[purpose, dtype] = torch.empty(elements, dtype=dtype)
    return buffer[:elements]


def row_tiles(rows: int, columns: int, *, align: int = 1, tile_bytes: int = TILE_BYTES) -> Iterator[tuple[int, int]]:
    """Yield start and stop of tiles of whole rows.

    Args:
        rows: Rows of the matrix.
        columns: Elements a row, 4 bytes each.
        align: Every start is a multiple of this many rows.
        tile_bytes: The size to stay below, if `align` lets it.

    >>> list(row_tiles(10, 4, align=2, tile_bytes=4 * 4 * 5))
    [(0, 4), (4, 8), (8, 10)]
    """
    fitting = max(tile_bytes // max(4 * columns, 1), 1)
    step = max(fitting // align, 1) * align
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def row_alignment(columns: int, block_size: int) -> int:
    """Return the smallest number of rows that ends where a block ends, for blocks that run on across rows.

    >>> row_alignment(576, 64), row_alignment(96, 64)
    (1, 2)
    """
    return block_size // math.gcd(columns, block_size) if columns else 1


def computing_dtype(x: torch.Tensor) -> torch.dtype:
    """Return the dtype to multiply in: x's own on a GPU; on a CPU float32 for the half types, where they are slower."""
    if x.device.type == "cpu" and x.dtype in (torch.float16, torch.bfloat16):
        return torch.float32
    return x.dtype


def tiled_linear(
    x: torch.Tensor, rows: int, unpack_rows: UnpackRows, bias: torch.Tensor | None, *, align: int = 1
) -> torch.Tensor:
    """Return `x @ weight.T + bias` for a weight that is unpacked tile by tile.

    Args:
        x: `[..., K]`, any floating dtype.
        rows: N.
        unpack_rows: Writes rows of the dense weight into a buffer.
        bias: `[N]` or None.
        align: Tiles start at multiples of this many rows.

    Returns:
        `[..., N]` in the dtype of `x`.
    """
    dtype, columns = computing_dtype(x), x.shape[-1]
    x_MK = x.reshape(math.prod(x.shape[:-1]), columns).to(dtype)  # noqa: N806 - the shape suffix of the legend
    # The result is the tensor that was made, not a view of it: callers write to it in place (`result += ...`), which
    # autograd refuses for a view that an operation returns.
    out = x_MK.new_empty(*x.shape[:-1], rows)
    out_MN = out.view(x_MK.shape[0], rows)  # noqa: N806
    for start, stop in row_tiles(rows, columns, align=align):
        tile = _unpacked(unpack_rows, start, stop, columns, dtype, x.device)
        torch.mm(x_MK, tile.t(), out=out_MN[:, start:stop])
    if bias is not None:
        out_MN.add_(bias.to(dtype))
    return out.to(x.dtype)


def tiled_input_grad(
    grad: torch.Tensor, columns: int, rows: int, unpack_rows: UnpackRows, *, align: int = 1
) -> torch.Tensor:
    """Return `grad @ weight`, the gradient of `tiled_linear` with respect to `x`.

    Args:
        grad: `[..., N]`, any floating dtype.
        columns: K.
        rows: N.
        unpack_rows: As for `tiled_linear`.
        align: As for `tiled_linear`.

    Returns:
        `[..., K]` in the dtype of `grad`.
    """
    dtype = computing_dtype(grad)
    grad_MN = grad.reshape(math.prod(grad.shape[:-1]), rows).to(dtype)  # noqa: N806
    out = grad_MN.new_zeros(*grad.shape[:-1], columns)
    out_MK = out.view(grad_MN.shape[0], columns)  # noqa: N806
    for start, stop in row_tiles(rows, columns, align=align):
        out_MK.addmm_(grad_MN[:, start:stop], _unpacked(unpack_rows, start, stop, columns, dtype, grad.device))
    return out.to(grad.dtype)


def _unpacked(
    unpack_rows: UnpackRows, start: int, stop: int, columns: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    tile = scratch((stop - start) * columns, dtype, device, "tile").view(stop - start, columns)
    unpack_rows(start, stop, tile)
    return tile
