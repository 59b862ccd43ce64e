"""The product of a few rows of bfloat16 with int8 codes: torch's own, faster there than unpacking.

torch multiplies bfloat16 by int8 without making the weight dense (`_weight_int8pack_mm`), 10 times as fast as a product that
unpacks. It wants one scale a row, in bfloat16, which would shift whole rows by up to 0.4 %; so it gets ones, and the scale
follows in float32. From about 16 rows on unpacking wins.

Two of its limits are kept here: with a number of columns that is no multiple of its vector length it reads past the end, and
for other dtypes than bfloat16 it is a plain loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_ROWS = 16
_COLUMNS_STEP = 64  # a multiple of every CPU's vector length


def suits_int8_linear(x: torch.Tensor) -> bool:
    """Return whether `int8_linear` takes this input and is the faster way.

    Args:
        x: `[..., K]`.

    >>> suits_int8_linear(torch.ones(1, 64, dtype=torch.bfloat16)), suits_int8_linear(torch.ones(1, 64))
    (True, False)
    """
    columns = x.shape[-1]
    few = 0 < x.numel() <= _MOST_ROWS * columns
    return few and x.dtype is torch.bfloat16 and x.device.type == "cpu" and columns % _COLUMNS_STEP == 0


def int8_linear(
    x: torch.Tensor, tiles: Iterable[torch.Tensor], row_scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return `(x @ codes.T) * row_scale + bias`.

    Args:
        x: `[..., K]`, one that `suits_int8_linear`.
        tiles: int8 `[some rows, K]` each, together N rows; one may overwrite the one before.
        row_scale: float32 `[N]` or `[1]`.
        bias: `[N]` or None.

    Returns:
        bfloat16 `[..., N]`.
    """
    x_MK = x.reshape(-1, x.shape[-1]).contiguous()  # noqa: N806 - M rows of x, K columns, N rows of the weight
    parts, ones = [], x.new_empty(0)
    for tile in tiles:
        if len(ones) != len(tile):
            ones = x.new_ones(len(tile))
        parts.append(torch.ops.aten._weight_int8pack_mm(x_MK, tile, ones))  # noqa: SLF001 - its only name
    out_MN = parts[0] if len(parts) == 1 else torch.cat(parts or [x_MK.new_empty(len(x_MK), 0)], dim=1)  # noqa: N806
    out_MN = out_MN.float()  # noqa: N806
    out_MN.mul_(row_scale)
    if bias is not None:
        out_MN.add_(bias)
    return out_MN.to(x.dtype).view(*x.shape[:-1], out_MN.shape[1])


def int8_workspace(x: torch.Tensor, rows: int) -> int:
    """Return the bytes that `int8_linear` takes besides its result.

    Args:
        x: As there.
        rows: N.
    """
    return x.numel() // x.shape[-1] * rows * 8 + 2 * rows  # two in bfloat16, one in float32, and the ones
