"""The block types of GGUF: one row of a weight is a run of blocks, each with its own scale as a half.

    type     block   bytes of a block                          equals our
    q8_0     32      half d, 32 int8          w = d * q        Int8(granularity="block", block_size=32), absmax = 127 d
    q4_0     32      half d, 16 nibbles       w = d * (q - 8)  nothing; from dense weights only
    tq2_0    256     64 bytes of 2 bits, half d                Ternary of any granularity of whole blocks of 256
    tq1_0    256     52 bytes of base 243, half d              the same

Codes go in and out exactly. A scale is rounded to a half on the way out, and is exact on the way in. GGUF's own ternary quantizers
take the largest magnitude for the scale, which ruins a master weight; here trits and scale are written as they are.

References:
    https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c, and the package `gguf`, which is the oracle of the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels.layouts import only_trits, pack_base243, pack_trits, unpack_base243, unpack_trits
from bedstone.quant.formats.errors import WeightFormatError
from bedstone.quant.int8 import Int8
from bedstone.quant.tensor import QuantizedTensor
from bedstone.quant.ternary import Ternary

if TYPE_CHECKING:
    from bedstone.quant.scheme import Scheme

BLOCK_ELEMENTS = {"q8_0": 32, "q4_0": 32, "tq1_0": 256, "tq2_0": 256}
"""Elements of a block by the name of its type; a row must be a multiple of it."""

BLOCK_BYTES = {"q8_0": 34, "q4_0": 18, "tq1_0": 54, "tq2_0": 66}
"""Bytes of a block, scale included."""

TERNARY_TYPES = ("tq1_0", "tq2_0")
_LIMIT = 127.0
_HALF_BYTES = 2


def holds_exactly(scheme: Scheme, kind: str) -> bool:
    """Tell whether every code of a scheme is a code of a type, so that only the scale is rounded.

    >>> holds_exactly(Int8("block", 32), "q8_0"), holds_exactly(Int8("row"), "q8_0"), holds_exactly(Ternary(), "tq1_0")
    (True, False, True)
    """
    if kind == "q8_0":
        return isinstance(scheme, Int8) and (scheme.granularity, scheme.block_size) == ("block", 32)
    if kind in TERNARY_TYPES and isinstance(scheme, Ternary):
        return scheme.granularity != "block" or scheme.block_size % BLOCK_ELEMENTS[kind] == 0
    return False


def encode_packed(weight: QuantizedTensor, kind: str, *, name: str = "") -> torch.Tensor:
    """Return a packed weight in the bytes of a type that holds it exactly.

    Args:
        weight: `[rows, columns]`, columns a multiple of the block; `holds_exactly(weight.scheme, kind)`.
        kind: `q8_0`, `tq1_0` or `tq2_0`.
        name: Of the weight, for messages.

    Returns:
        uint8 `[rows, columns / block * bytes]` on the CPU; each row can stand by itself.

    Raises:
        WeightFormatError: A scale is too large for a half.

    >>> weight = Int8("block", 32).quantize(torch.full((1, 32), 127.0))
    >>> encode_packed(weight, "q8_0").view(torch.int8)[0, 2:].unique().tolist()
    [127]
    """
    rows, columns = weight.shape
    blocks = columns // BLOCK_ELEMENTS[kind]
    parts = {part: value.detach().cpu() for part, value in weight.parts.items()}
    if kind == "q8_0":
        scale = _half(parts["absmax"] / _LIMIT, name)
        codes = parts["codes"].contiguous().view(torch.uint8).view(rows, blocks, -1)
        return torch.cat([scale, codes], dim=2).view(rows, -1)
    scale = _half(_spread(parts["scale"], weight.scheme, rows, blocks), name)
    payload = parts["packed"]
    if kind == "tq1_0":
        payload = pack_base243(unpack_trits(payload, columns).view(rows * blocks, -1))
    return torch.cat([payload.reshape(rows, blocks, -1), scale], dim=2).view(rows, -1)


def encode_dense(weight: torch.Tensor, kind: str, *, name: str = "") -> torch.Tensor:
    """Return a dense weight quantized by the package `gguf`, whose bits are those of llama.cpp.

    Args:
        weight: Floating `[rows, columns]`, columns a multiple of the block.
        kind: `q8_0` or `q4_0`; or a ternary type, which takes exact trits times a scale and nothing else.
        name: Of the weight, for messages.

    Returns:
        uint8 `[rows, columns / block * bytes]`.

    Raises:
        WeightFormatError: A scale is too large for a half.

    >>> encode_dense(torch.ones(1, 32), "q4_0").shape
    torch.Size([1, 18])
    """
    from gguf.quants import quantize

    rows = weight.detach().float().cpu()
    largest = rows.abs().amax().item() if rows.numel() else 0.0
    _half(torch.tensor([[largest / _LIMIT if kind == "q8_0" else largest / 8]]), name)
    return torch.from_numpy(quantize(rows.numpy(), _type(kind)))


def decode_dense(data: torch.Tensor, kind: str) -> torch.Tensor:
    """Return the dense weight that rows of blocks stand for, as the package `gguf` computes it.

    Args:
        data: uint8 `[rows, bytes]`.
        kind: The name of any type that the package can dequantize, in small letters.

    Returns:
        float32 `[rows, columns]`.

    >>> decode_dense(encode_dense(torch.full((1, 32), 127.0), "q8_0"), "q8_0").sum().item()
    4064.0
    """
    from gguf.quants import dequantize

    return torch.from_numpy(dequantize(data.numpy(), _type(kind)))


def unpack_blocks(data: torch.Tensor, kind: str, *, name: str = "") -> QuantizedTensor:
    """Return the packed weight that rows of blocks hold: same codes, same scales.

    Args:
        data: uint8 `[rows, bytes]`.
        kind: `q8_0`, `tq1_0` or `tq2_0`.
        name: Of the weight, for messages.

    Returns:
        float32 weight, packed as `Int8("block", 32)` or `Ternary("block", 256)`.

    Raises:
        WeightFormatError: A 2-bit code is 3, which is no trit.

    >>> weight = Ternary("block", 256).quantize(torch.ones(2, 256))
    >>> torch.equal(unpack_blocks(encode_packed(weight, "tq2_0"), "tq2_0").dequantize(), torch.ones(2, 256))
    True
    """
    rows, elements, size = data.shape[0], BLOCK_ELEMENTS[kind], BLOCK_BYTES[kind]
    blocks = data.reshape(rows, -1, size)
    columns = blocks.shape[1] * elements
    if kind == "q8_0":
        scale, codes = blocks.split([_HALF_BYTES, elements], dim=2)
        parts = {"codes": codes.reshape(rows, columns).view(torch.int8), "absmax": _single(scale) * _LIMIT}
        return QuantizedTensor(parts, Int8("block", elements), (rows, columns), torch.float32)
    payload, scale = blocks.split([size - _HALF_BYTES, _HALF_BYTES], dim=2)
    if kind == "tq1_0":
        packed = pack_trits(unpack_base243(payload.reshape(-1, size - _HALF_BYTES)).view(rows, columns))
    else:
        packed = payload.reshape(rows, -1)
    if not only_trits(packed):
        message = f"{name or 'The weight'} holds a code of 3; trits are stored as 0, 1 and 2."
        raise WeightFormatError(message, format="gguf", weight=name, remedy="The file may be damaged; get it again.")
    parts = {"packed": packed, "scale": _single(scale)}
    return QuantizedTensor(parts, Ternary("block", elements), (rows, columns), torch.float32)


def _spread(scale: torch.Tensor, scheme: Scheme, rows: int, blocks: int) -> torch.Tensor:
    """A ternary scale of any granularity as `[rows, blocks]`, one for 256 elements."""
    if not isinstance(scheme, Ternary) or scheme.granularity != "block":
        return scale.expand(rows, blocks)
    return scale.repeat_interleave(scheme.block_size // BLOCK_ELEMENTS["tq2_0"], dim=1)[:, :blocks]


def _half(scale: torch.Tensor, name: str) -> torch.Tensor:
    """The bytes of scales as halves, uint8 `[rows, blocks, 2]`."""
    half = scale.half()
    if not bool(torch.isfinite(half).all()):
        message = (
            f"A scale of {name or 'the weight'} is {scale.max().item():g}; GGUF keeps scales as halves, up to 65,504."
        )
        raise WeightFormatError(message, format="gguf", weight=name, remedy="Leave this layer in F32, or rescale it.")
    return half.contiguous().view(torch.uint8).view(*scale.shape, _HALF_BYTES)


def _single(half: torch.Tensor) -> torch.Tensor:
    return half.contiguous().view(torch.float16).float().squeeze(2)


def _type(kind: str) -> Any:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[kind.upper()]
