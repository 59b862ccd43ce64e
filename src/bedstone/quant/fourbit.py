"""NF4 and FP4: four bits a weight and one scale a block, as bitsandbytes packs them, bit for bit.

    option          bits a weight (blocks of 64)
    plain           4.5
    double_quant    4.127: the scales are quantized too, to 8 bits with one float32 for 256 of them

Parts: `packed` uint8 `[ceil(n / 2)]`, `absmax` float32 `[ceil(n / block_size)]`; with double quantization `absmax` is uint8
and `nested_absmax` float32 `[ceil(blocks / 256)]` and `offset` float32 `[]` stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bedstone.core.errors import Problem
from bedstone.kernels.fourbit import dequantize_4bit, linear_4bit, quantize_4bit, quantize_absmax
from bedstone.kernels.fourbit.reference import NESTED_BLOCK
from bedstone.kernels.tiles import row_alignment
from bedstone.quant.errors import QuantizationError
from bedstone.quant.scheme import Parts, Scheme, schemes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""What bitsandbytes' CPU and GPU code takes."""


@dataclass(frozen=True)
class _FourBit(Scheme):
    """What NF4 and FP4 share; they differ in their table."""

    block_size: int = 64
    double_quant: bool = False

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the options."""
        if self.block_size not in BLOCK_SIZES:
            allowed = ", ".join(map(str, BLOCK_SIZES))
            yield Problem("block_size", f"(={self.block_size!r}) must be one of {allowed}.", self.block_size)
        if not isinstance(self.double_quant, bool):
            yield Problem("double_quant", f"(={self.double_quant!r}) must be true or false.", self.double_quant)

    def pack(self, weight: torch.Tensor) -> Parts:
        """Return `packed` and `absmax`, and the nested scales with double quantization."""
        packed, absmax = quantize_4bit(weight, self.block_size, self.name)
        if not self.double_quant:
            return {"packed": packed, "absmax": absmax}
        absmax, nested_absmax, offset = quantize_absmax(absmax)
        return {"packed": packed, "absmax": absmax, "nested_absmax": nested_absmax, "offset": offset}

    def unpack(self, parts: Parts, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return the dense weight."""
        return dequantize_4bit(*self._arguments(parts, shape), dtype)

    def linear(self, x: torch.Tensor, parts: Parts, shape: Sequence[int], bias: torch.Tensor | None) -> torch.Tensor:
        """Return `x @ weight.T + bias`, a tile of rows at a time."""
        return linear_4bit(x, *self._arguments(parts, shape), bias)

    def slice_rows(self, parts: Parts, shape: Sequence[int], start: int, stop: int) -> Parts:
        """Return the parts of some rows; a cut must fall between blocks, and between groups of nested scales."""
        rows, columns = shape[0], _columns(shape)
        unit = self.block_size * NESTED_BLOCK if self.double_quant else self.block_size
        step = row_alignment(columns, unit)
        if start % step or (stop % step and stop != rows):
            what = f"a group of {NESTED_BLOCK} scales" if self.double_quant else f"a block of {self.block_size}"
            rule = f"{what} ends every {step} rows of {columns}"
            message = f"{self.name} cannot be cut at rows {start} to {stop}: {rule}."
            raise QuantizationError(message, scheme=self.name, remedy="Keep the weight whole on each device.")
        elements = {"packed": 2, "absmax": self.block_size, "nested_absmax": unit}  # of the weight, in one of the part
        first, last = start * columns, stop * columns
        return {
            name: part[first // elements[name] : -(-last // elements[name])] if name in elements else part
            for name, part in parts.items()
        }

    def _arguments(self, parts: Parts, shape: Sequence[int]) -> tuple[object, ...]:
        nested = parts.get("nested_absmax"), parts.get("offset")
        return parts["packed"], parts["absmax"], *nested, shape, self.block_size, self.name


@schemes.register("nf4")
@dataclass(frozen=True)
class NF4(_FourBit):
    """4-bit NormalFloat: 16 quantiles of a normal distribution times the largest magnitude of a block.

    Args:
        block_size: Elements that share a scale: 32, 64, 128, ... 4096.
        double_quant: Quantize the scales too: 4.127 instead of 4.5 bits a weight at blocks of 64.

    Raises:
        InvalidConfigError: An option is not allowed.

    References:
        Dettmers, Pagnoni, Holtzman, Zettlemoyer: QLoRA, 2023, https://arxiv.org/abs/2305.14314. Bit-identical to
        bitsandbytes 0.50.

    >>> import torch
    >>> q = NF4().quantize(torch.linspace(-1, 1, 128).view(2, 64))
    >>> q.packed_bytes, q.bits_per_param
    (72, 4.5)
    >>> NF4(block_size=48)
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: NF4 has a problem:
      `block_size` (=48) must be one of 32, 64, 128, 256, 512, 1024, 2048, 4096.
    """

    name: ClassVar[str] = "nf4"


@schemes.register("fp4")
@dataclass(frozen=True)
class FP4(_FourBit):
    """4-bit floating point of bitsandbytes: sign and eight magnitudes, 0 to 1, times the largest magnitude of a block.

    Args:
        block_size: Elements that share a scale: 32, 64, 128, ... 4096.
        double_quant: Quantize the scales too: 4.127 instead of 4.5 bits a weight at blocks of 64.

    Raises:
        InvalidConfigError: An option is not allowed.

    >>> import torch
    >>> FP4().quantize(torch.tensor([[0.0, 0.5, -1.0]])).dequantize()
    tensor([[ 0.0000,  0.5000, -1.0000]])
    """

    name: ClassVar[str] = "fp4"


def _columns(shape: Sequence[int]) -> int:
    columns = 1
    for size in shape[1:]:
        columns *= size
    return columns
