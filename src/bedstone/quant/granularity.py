"""Which weights share a scale: the whole tensor, a row, or a block of a row.

A weight of any shape is seen as a matrix whose rows run along its last dimension.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bedstone.core.errors import Problem
from bedstone.quant.errors import QuantizationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from bedstone.quant.scheme import Parts


def granularity_problems(granularity: object, allowed: Sequence[str], block_size: object) -> Iterator[Problem]:
    """Yield what is wrong with the two options.

    Args:
        granularity: One of `allowed`.
        allowed: The names, `tensor`, `row` or `block`.
        block_size: Columns that share a scale when `granularity` is `block`; at least 1.
    """
    if granularity not in allowed:
        yield Problem("granularity", f"(={granularity!r}) must be one of {', '.join(allowed)}.", granularity)
    if not isinstance(block_size, int) or isinstance(block_size, bool) or block_size < 1:
        yield Problem("block_size", f"(={block_size!r}) must be a whole number of at least 1.", block_size)


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight as `[rows, columns]`, its last dimension kept.

    >>> import torch
    >>> as_matrix(torch.ones(2, 3, 4)).shape, as_matrix(torch.ones(5)).shape
    (torch.Size([6, 4]), torch.Size([1, 5]))
    """
    return weight.reshape(math.prod(weight.shape[:-1]), weight.shape[-1])


def columns_in_block(shape: Sequence[int], granularity: str, block_size: int) -> int:
    """Return how many columns share a scale.

    >>> columns_in_block((8, 576), "row", 64), columns_in_block((8, 576), "block", 64)
    (576, 64)
    """
    return block_size if granularity == "block" else max(shape[-1], 1)


def slice_part_rows(parts: Parts, shape: Sequence[int], start: int, stop: int, scheme: str) -> Parts:
    """Return rows of parts that have one row a row of the weight; one scale for the whole tensor stays as it is.

    Args:
        parts: `[rows, ...]` each, or `[1, 1]`.
        shape: Of the weight.
        start: First index along the weight's first dimension.
        stop: Behind the last.
        scheme: The name of the scheme, for the message.

    Raises:
        QuantizationError: The weight has one dimension; it is a single row.
    """
    if len(shape) == 1 and (start, stop) != (0, shape[0]):
        message = f"{scheme} cannot be cut at {start} to {stop}: a weight of one dimension is a single row."
        raise QuantizationError(message, scheme=scheme, remedy="Keep the weight whole on each device.")
    if len(shape) == 1:
        return dict(parts)
    inner = math.prod(shape[1:-1])
    rows = math.prod(shape[:-1])
    return {name: part[start * inner : stop * inner] if part.shape[0] == rows else part for name, part in parts.items()}
