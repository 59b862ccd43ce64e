"""ternary: -1, 0 or 1 times a scale, two bits a weight; BitNet b1.58.

Parts: `packed` uint8 `[rows, ceil(columns / 4)]` (the chunked 2-bit layout of `kernels.layouts`), `scale` float32
`[1, 1]`, `[rows, 1]` or `[rows, blocks]`. Made for models trained this way (`BitLinear`): a model that was not loses about half of
each weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bedstone.kernels.ternary import dequantize_ternary, linear_ternary, quantize_ternary
from bedstone.quant.granularity import as_matrix, columns_in_block, granularity_problems, slice_part_rows
from bedstone.quant.scheme import Parts, Scheme, schemes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from bedstone.core.errors import Problem


@schemes.register("ternary")
@dataclass(frozen=True)
class Ternary(Scheme):
    """Ternary weights: `round(w / scale)` within -1 ... 1, scale = mean |w| (at least 1e-5).

    Args:
        granularity: `tensor` (BitNet b1.58), `row` or `block`.
        block_size: Columns that share a scale when `granularity` is `block`.

    Raises:
        InvalidConfigError: An option is not allowed.

    References:
        Ma et al.: The Era of 1-bit LLMs, 2024, https://arxiv.org/abs/2402.17764. Trits equal transformers' online
        quantizer.

    >>> import torch
    >>> q = Ternary().quantize(torch.tensor([[0.9, -1.1, 0.1, 0.0]]))
    >>> q.dequantize()
    tensor([[ 0.5250, -0.5250,  0.0000,  0.0000]])
    """

    name: ClassVar[str] = "ternary"
    granularity: str = "tensor"
    block_size: int = 64

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the options."""
        return granularity_problems(self.granularity, ("tensor", "row", "block"), self.block_size)

    def pack(self, weight: torch.Tensor) -> Parts:
        """Return `packed` and `scale`."""
        block = columns_in_block(weight.shape, self.granularity, self.block_size)
        matrix = as_matrix(weight).contiguous()  # the order of a sum decides its last bit, and follows the strides
        packed, scale = quantize_ternary(matrix, block, self.granularity == "tensor")
        return {"packed": packed, "scale": scale}

    def unpack(self, parts: Parts, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return the dense weight."""
        return dequantize_ternary(*self._arguments(parts, shape), dtype).view(shape)

    def linear(self, x: torch.Tensor, parts: Parts, shape: Sequence[int], bias: torch.Tensor | None) -> torch.Tensor:
        """Return `x @ weight.T + bias`, a tile of rows at a time."""
        return linear_ternary(x, *self._arguments(parts, shape), bias)

    def slice_rows(self, parts: Parts, shape: Sequence[int], start: int, stop: int) -> Parts:
        """Return the parts of some rows, as views."""
        return slice_part_rows(parts, shape, start, stop, self.name)

    def _arguments(self, parts: Parts, shape: Sequence[int]) -> tuple[object, ...]:
        block = columns_in_block(shape, self.granularity, self.block_size)
        columns = shape[-1]
        return parts["packed"], parts["scale"], [parts["packed"].shape[0], columns], block
