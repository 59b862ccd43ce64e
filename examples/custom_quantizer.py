"""A quantization scheme of your own: the two protocols `Quantize` and `Dequantize`, and its error measured, not claimed.

Int8 with one scale a row: w ~ scale * code, scale = max|row| / 127. Rounding is off by at most half a step, so the error
of a weight is at most scale / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

import bedstone as bs


@dataclass(frozen=True)
class Int8Rows:
    """Codes [rows, columns] int8 and one float32 scale a row."""

    codes: torch.Tensor
    scale: torch.Tensor


class Int8RowScheme:
    """Implements both halves; a one-way scheme would implement `Quantize` alone."""

    def quantize(self, tensor: torch.Tensor, device: torch.device) -> Int8Rows:
        """Return codes and scales of a matrix, on `device`."""
        if tensor.ndim != 2:
            raise bs.DimensionMismatchError(expected=2, actual=tensor.ndim, argument="tensor")
        rows = tensor.to(device, torch.float32)
        scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        return Int8Rows((rows / scale).round().to(torch.int8), scale)

    def dequantize(self, quantized: Int8Rows, device: torch.device) -> torch.Tensor:
        """Return codes times scales, in float32 on `device`."""
        return (quantized.codes.to(torch.float32) * quantized.scale).to(device)


def main() -> None:
    torch.manual_seed(0)
    scheme, cpu = Int8RowScheme(), torch.device("cpu")
    print(f"Is a Quantize: {isinstance(scheme, bs.Quantize)}, is a Dequantize: {isinstance(scheme, bs.Dequantize)}")
    weight = torch.randn(576, 1536) * 0.02
    packed = scheme.quantize(weight, cpu)
    error = scheme.dequantize(packed, cpu) - weight
    size = packed.codes.nbytes + packed.scale.nbytes
    print(f"{weight.nbytes:,} bytes become {size:,}: {8 * size / weight.numel():.2f} bits a weight")
    print(f"relative error {error.norm() / weight.norm():.4%}, largest {error.abs().max():.2e}")
    print(f"within the promised bound: {bool((error.abs() <= packed.scale / 2 * 1.0001).all())}")
    try:
        scheme.quantize(weight[0], cpu)
    except bs.DimensionMismatchError as problem:
        print(f"A vector is refused: {problem}")


if __name__ == "__main__":
    main()
