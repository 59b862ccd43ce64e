"""What the rounded products of the CPU library share: which shapes they take and the memory that they need.

Inputs become whole numbers of 16 bits, one scale a group of 64 columns, so that sums are exact and cost half of a sum of floats. Up to 16 rows
of x are multiplied while the weight is read; for more of them a panel of the weight is unpacked once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bedstone.core.memory import workspace_buffer
from bedstone.kernels.native.library import library, status
from bedstone.kernels.tiles import multiplies_bfloat16

if TYPE_CHECKING:
    from bedstone.kernels.implementation import KernelSpec

GROUP = 64
"""Columns of x that are rounded together."""
FEW_ROWS = 16
"""Rows of x up to which no panel is unpacked."""


def in_groups(columns: int, block_size: int) -> bool:
    """Return whether a row and a block consist of whole groups of columns.

    >>> in_groups(192, 64), in_groups(192, 32)
    (True, False)
    """
    return columns > 0 and not columns % GROUP and not block_size % GROUP


def in_squares(shape: list[int], block_size: int) -> bool:
    """Return whether a weight consists of whole groups of rows by whole groups of columns.

    >>> in_squares([64, 192], 64), in_squares([96, 192], 64)
    (True, False)
    """
    rows, columns = shape
    return rows > 0 and not rows % GROUP and in_groups(columns, block_size)


def unfit_columns(spec: KernelSpec) -> str:
    """Return that the columns are no whole groups, or nothing.

    Args:
        spec: Of a product.
    """
    whole = spec.columns and not spec.columns % GROUP
    return "" if whole else f"it takes columns in groups of {GROUP}, not {spec.columns}"


def unfit(spec: KernelSpec) -> str:
    """Return why a rounded product would not be faster than an exact one, or nothing.

    Args:
        spec: Of a product.
    """
    reason = unfit_columns(spec)
    return reason if reason or spec.inputs <= FEW_ROWS else _unfit_panels(spec)


def _unfit_panels(spec: KernelSpec) -> str:
    if spec.dtype is torch.bfloat16 and multiplies_bfloat16():
        return "this CPU multiplies bfloat16 itself, which is faster for many rows"
    if status().isa.startswith("avx512"):
        return "with AVX-512 it was never measured to be faster for many rows"
    return ""


def unfit_input_grad(spec: KernelSpec) -> str:
    """Return why a rounded gradient would not be faster than an exact one, or nothing.

    Args:
        spec: Of a product.
    """
    if not spec.rows or spec.rows % GROUP:
        return f"it sums over rows in groups of {GROUP}, not {spec.rows}"
    return unfit_columns(spec) or _unfit_panels(spec)


def workspace(inputs: int, columns: int) -> int:
    """Return the bytes that a rounded product takes with the threads that torch uses.

    Args:
        inputs: Rows of x.
        columns: Of the weight.
    """
    few = inputs * (4 * columns // GROUP + 2 * columns) + 4 * columns
    return few if inputs <= FEW_ROWS else panel_bytes(inputs, columns)


def panel_bytes(inputs: int, summed: int) -> int:
    """Return the bytes that a product with panels of the weight takes with the threads that torch uses.

    Args:
        inputs: Rows of x, or of the gradient.
        summed: How many products a sum has: columns of the weight, or its rows.
    """
    return library().bs_rounded_scratch(inputs, summed, torch.get_num_threads())


def panel_memory(inputs: int, summed: int) -> int:
    """Return the address of kept memory of `panel_bytes` for such a product.

    Args:
        inputs: Rows of x, or of the gradient.
        summed: How many products a sum has.
    """
    return workspace_buffer(panel_bytes(inputs, summed), torch.uint8, torch.device("cpu"), "rounded").data_ptr()


def scratch_memory(inputs: int, columns: int) -> int | None:
    """Return the address of kept memory for a product of many rows; of few rows there is none.

    Args:
        inputs: Rows of x.
        columns: Of the weight.
    """
    return None if inputs <= FEW_ROWS else panel_memory(inputs, columns)
