"""Microsoft's I2_S, the ternary type of bitnet.cpp, in and out: as it lies in memory on x86 when built with ACT_PARALLEL.

    uint8 [n / 4]    128 elements in 32 bytes: element i in bits 6-7 of byte i, i + 32 in bits 4-5, ..., code = trit + 1
    float32          the scale of the whole tensor
    28 bytes         padding

The layout is that of one build and not of a file format: without ACT_PARALLEL the same library interleaves four rows, and on ARM the
groups are 64 long. A file says nothing about it. This is the layout of x86 with ACT_PARALLEL and no other.

References:
    `quantize_i2_s` in https://github.com/microsoft/BitNet/blob/16da220/src/ggml-bitnet-mad.cpp.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels.layouts import TRITS_PER_CHUNK, only_trits, reverse_pairs
from bedstone.quant.formats.errors import WeightFormatError
from bedstone.quant.tensor import QuantizedTensor
from bedstone.quant.ternary import Ternary

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMAT = "i2_s"
_TAIL = 32  # bytes of scale and padding


def to_i2_s(weight: QuantizedTensor) -> torch.Tensor:
    """Return a ternary weight in the bytes of I2_S, x86 with ACT_PARALLEL.

    Args:
        weight: `[rows, columns]`, ternary with one scale a tensor; columns a multiple of 128.

    Returns:
        uint8 `[rows * columns / 4 + 32]`; trits and scale are exact.

    Raises:
        WeightFormatError: It is another scheme or granularity, or the columns are no multiple of 128.

    >>> import bedstone as bs
    >>> data = to_i2_s(bs.quantize(torch.full((2, 128), 0.5), "ternary"))
    >>> data.shape, data[64:68].view(torch.float32).item()
    (torch.Size([96]), 0.5)
    """
    scheme, shape = weight.scheme, tuple(weight.shape)
    if not isinstance(scheme, Ternary) or scheme.granularity != "tensor":
        message = f"I2_S has no form for a weight packed as {scheme}: it has trits and one scale a tensor."
        raise _fault(message, "Pack it as Ternary().")
    _check_columns(shape)
    payload = reverse_pairs(weight.parts["packed"]).view(-1)
    scale = weight.parts["scale"].view(1).view(torch.uint8)
    return torch.cat([payload, scale, payload.new_zeros(_TAIL - scale.numel())])


def from_i2_s(data: torch.Tensor, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> QuantizedTensor:
    """Return the ternary weight in the bytes of an I2_S tensor of x86 with ACT_PARALLEL.

    Args:
        data: uint8 `[rows * columns / 4 + 32]`.
        shape: `(rows, columns)`; columns a multiple of 128.
        dtype: Of the weight.

    Raises:
        WeightFormatError: The size does not fit the shape, a code is 3, or the scale is not a finite number of at least 0.

    >>> import bedstone as bs
    >>> q = bs.quantize(torch.randn(4, 256), "ternary")
    >>> torch.equal(from_i2_s(to_i2_s(q), (4, 256)).dequantize(), q.dequantize())
    True
    """
    rows_columns = tuple(shape)
    _check_columns(rows_columns)
    payload_bytes = math.prod(rows_columns) // 4
    if data.dtype is not torch.uint8 or data.numel() != payload_bytes + _TAIL:
        message = f"An I2_S tensor of shape {rows_columns} has {payload_bytes + _TAIL} bytes, not {data.dtype} {tuple(data.shape)}."
        raise _fault(message, "Check the shape; the data may be truncated.")
    payload, tail = data.detach().reshape(-1).split([payload_bytes, _TAIL])
    if not only_trits(payload):
        raise _fault("The data hold a code of 3; trits are stored as 0, 1 and 2.", "They may be damaged.")
    scale = tail[:4].clone().view(torch.float32)  # a copy, since the data may lie at any address
    if not 0 <= scale.item() < float("inf"):
        message = f"The scale behind the data is {scale.item()}; it must be finite and at least 0."
        raise _fault(message, "The data may be of another layout or damaged.")
    packed = reverse_pairs(payload).view(rows_columns[0], -1)
    return QuantizedTensor({"packed": packed, "scale": scale.view(1, 1)}, Ternary(), rows_columns, dtype)


def _check_columns(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[1] % TRITS_PER_CHUNK:  # noqa: PLR2004
        message = f"I2_S holds matrices whose columns are a multiple of {TRITS_PER_CHUNK}, not the shape {shape}."
        raise _fault(message, "Leave this layer in another type.", shape=shape)


def _fault(message: str, remedy: str, **facts: Any) -> WeightFormatError:
    return WeightFormatError(message, format=_FORMAT, remedy=remedy, **facts)
