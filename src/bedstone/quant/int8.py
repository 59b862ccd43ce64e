"""int8: one byte a weight, one scale a row or a block of a row.

Parts: `codes` int8 `[rows, columns]`, `absmax` float32 `[rows, blocks]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from bedstone.kernels.eightbit import dequantize_8bit, linear_8bit, quantize_8bit
from bedstone.quant.granularity import as_matrix, columns_in_block, granularity_problems, slice_part_rows
from bedstone.quant.scheme import Parts, Scheme, schemes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bedstone.core.errors import Problem


@dataclass(frozen=True)
class EightBit(Scheme):
    """What int8 and fp8 share: codes of one byte in the shape of the weight, and absmax."""

    granularity: str = "row"
    block_size: int = 64

    @property
    def code_dtype(self) -> torch.dtype:
        """The dtype of the codes."""
        return torch.int8

    def pack(self, weight: torch.Tensor) -> Parts:
        """Return `codes` and `absmax`."""
        block = columns_in_block(weight.shape, self.granularity, self.block_size)
        codes, absmax = quantize_8bit(as_matrix(weight), self.code_dtype, block, self.granularity == "tensor")
        return {"codes": codes, "absmax": absmax}

    def unpack(self, parts: Parts, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return the dense weight."""
        block = columns_in_block(shape, self.granularity, self.block_size)
        return dequantize_8bit(parts["codes"], parts["absmax"], block, dtype).view(shape)

    def linear(self, x: torch.Tensor, parts: Parts, shape: Sequence[int], bias: torch.Tensor | None) -> torch.Tensor:
        """Return `x @ weight.T + bias`, a tile of rows at a time."""
        block = columns_in_block(shape, self.granularity, self.block_size)
        return linear_8bit(x, parts["codes"], parts["absmax"], block, bias)

    def slice_rows(self, parts: Parts, shape: Sequence[int], start: int, stop: int) -> Parts:
        """Return the parts of some rows, as views."""
        return slice_part_rows(parts, shape, start, stop, self.name)


@schemes.register("int8")
@dataclass(frozen=True)
class Int8(EightBit):
    """Linear int8, symmetric: `round(w * 127 / absmax)`.

    Args:
        granularity: `row` (bitsandbytes, torchao) or `block` (GGUF's Q8_0 has blocks of 32).
        block_size: Columns that share a scale when `granularity` is `block`.

    Raises:
        InvalidConfigError: An option is not allowed.

    References:
        Dettmers, Lewis, Belkada, Zettlemoyer: LLM.int8(), 2022, https://arxiv.org/abs/2208.07339.

    >>> q = Int8().quantize(torch.tensor([[1.0, -2.0], [0.0, 0.0]]))
    >>> q.parts["codes"].tolist(), q.parts["absmax"].tolist()
    ([[64, -127], [0, 0]], [[2.0], [0.0]])
    """

    name: ClassVar[str] = "int8"

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the options."""
        return granularity_problems(self.granularity, ("row", "block"), self.block_size)
