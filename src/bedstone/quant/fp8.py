"""fp8: the two float8 types with one scale a tensor, a row or a block of a row.

Parts: `codes` float8 `[rows, columns]`, `absmax` float32 `[rows, blocks]` or `[1, 1]`. The largest magnitude of a block
becomes the largest of the type (448 or 57,344), so that its range is used and nothing overflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from bedstone.core.errors import Problem
from bedstone.quant.granularity import granularity_problems
from bedstone.quant.int8 import EightBit
from bedstone.quant.scheme import schemes

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = {"e4m3fn": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
"""The float8 types by the name of their bits."""


@schemes.register("fp8")
@dataclass(frozen=True)
class FP8(EightBit):
    """float8 weights, `e4m3fn` (finer) or `e5m2` (wider).

    Args:
        granularity: `tensor`, `row` or `block`; the error is nearly the same for all, finer scales help against outliers.
        block_size: Columns that share a scale when `granularity` is `block`.
        format: `e4m3fn` or `e5m2`.

    Raises:
        InvalidConfigError: An option is not allowed.

    References:
        Micikevicius et al.: FP8 Formats for Deep Learning, 2022, https://arxiv.org/abs/2209.05433.

    >>> FP8(format="e5m2").quantize(torch.tensor([[1.0, -2.0]])).dequantize()
    tensor([[ 1., -2.]])
    """

    name: ClassVar[str] = "fp8"
    format: str = "e4m3fn"

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the options."""
        yield from granularity_problems(self.granularity, ("tensor", "row", "block"), self.block_size)
        if self.format not in FORMATS:
            yield Problem("format", f"(={self.format!r}) must be one of {', '.join(FORMATS)}.", self.format)

    @property
    def code_dtype(self) -> torch.dtype:
        """The dtype of the codes."""
        return FORMATS[self.format]
