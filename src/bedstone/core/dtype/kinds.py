"""How many bits a dtype takes, what kind it is, and what to add it up in.

Bits are the exact truth, since an element may be smaller than a byte. `uint4` has 4 bits: n of them, packed, take
`ceil(4 * n / 8)` bytes. torch's own `itemsize` says 1 for it, which is `bytes_per_element` here: what an element takes
alone. Where torch's element already is a packed group (`float4_e2m1fn_x2`, `bits4x2`, ...), the group is the element.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bedstone.core.dtype.names import parse_dtype
from bedstone.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SMALL_INTEGERS = {getattr(torch, f"{sign}int{bits}"): bits for sign in ("", "u") for bits in range(1, 8)}
_INTEGERS: Mapping[torch.dtype, int] = {
    **_SMALL_INTEGERS,
    torch.int8: 8,
    torch.int16: 16,
    torch.int32: 32,
    torch.int64: 64,
    torch.uint8: 8,
    torch.uint16: 16,
    torch.uint32: 32,
    torch.uint64: 64,
}
_FLOATS: Mapping[torch.dtype, int] = {
    torch.float4_e2m1fn_x2: 8,  # two 4-bit numbers are one element
    torch.float8_e4m3fn: 8,
    torch.float8_e4m3fnuz: 8,
    torch.float8_e5m2: 8,
    torch.float8_e5m2fnuz: 8,
    torch.float8_e8m0fnu: 8,
    torch.float16: 16,
    torch.bfloat16: 16,
    torch.float32: 32,
    torch.float64: 64,
}
_COMPLEX: Mapping[torch.dtype, int] = {torch.complex32: 32, torch.complex64: 64, torch.complex128: 128}
# Codes of torch.quantize_*: a shape counts the numbers, two (quint4x2) or four (quint2x4) of which share a byte.
_QUANTIZED: Mapping[torch.dtype, int] = {
    torch.quint2x4: 2,
    torch.quint4x2: 4,
    torch.quint8: 8,
    torch.qint8: 8,
    torch.qint32: 32,
}
# Bare bits: an element of bits1x8 is eight 1-bit fields, of bits2x4 four of 2 bits, of bits4x2 two of 4 bits.
_BARE: Mapping[torch.dtype, int] = {
    torch.bits1x8: 8,
    torch.bits2x4: 8,
    torch.bits4x2: 8,
    torch.bits8: 8,
    torch.bits16: 16,
}
_BITS: Mapping[torch.dtype, int] = {torch.bool: 8, **_INTEGERS, **_FLOATS, **_COMPLEX, **_QUANTIZED, **_BARE}

_HALF = frozenset({torch.float16, torch.bfloat16})
_TRAINING = frozenset({torch.float16, torch.bfloat16, torch.float32})
_WIDE = {torch.float64: torch.float64, torch.complex128: torch.complex128}


def bits_per_element(dtype: torch.dtype | str) -> int:
    """Return the bits that one element takes when elements are packed.

    Args:
        dtype: Any dtype or its name.

    Returns:
        The exact number of bits: 4 for `uint4`, 8 for `bool`, and 8 for `float4_e2m1fn_x2`, whose element is a pair.

    Raises:
        UnsupportedError: A dtype that a later torch has added and that is not in the table.
        UnknownNameError: A text that names no dtype.

    >>> bits_per_element(torch.bfloat16), bits_per_element(torch.uint4), bits_per_element("f8_e4m3fn")
    (16, 4, 8)
    """
    if not isinstance(dtype, torch.dtype):
        dtype = parse_dtype(dtype)
    if dtype in _BITS:
        return _BITS[dtype]
    raise UnsupportedError(
        f"The size of {dtype} is not known.",
        feature=str(dtype),
        remedy="Add the dtype to the table in bedstone/core/dtype/kinds.py.",
    )


def bytes_per_element(dtype: torch.dtype | str) -> int:
    """Return the whole bytes that one element takes alone: `ceil(bits / 8)`, torch's `itemsize`.

    For many elements of a dtype below a byte, use `bits_per_element`: eight `uint1` take one byte, not eight.

    Args:
        dtype: Any dtype or its name.

    Returns:
        Bytes, at least 1.

    Raises:
        UnknownNameError: A text that names no dtype.

    >>> bytes_per_element(torch.float32), bytes_per_element(torch.uint4)
    (4, 1)
    """
    return -(-bits_per_element(dtype) // 8)


def is_floating_point(dtype: torch.dtype | str) -> bool:
    """Return whether elements are real floating-point numbers; float8 and float4 are, complex numbers are not.

    >>> is_floating_point(torch.float8_e5m2), is_floating_point(torch.complex64), is_floating_point("i8")
    (True, False, False)
    """
    return parse_dtype(dtype).is_floating_point


def is_half_precision(dtype: torch.dtype | str) -> bool:
    """Return whether a dtype is one of the two 16-bit floats, `float16` and `bfloat16`.

    >>> is_half_precision("bf16"), is_half_precision("f32")
    (True, False)
    """
    return parse_dtype(dtype) in _HALF


def is_training_dtype(dtype: torch.dtype | str) -> bool:
    """Return whether models are trained in a dtype as a rule: `float16`, `bfloat16` and `float32`.

    Not `float64`, which no accelerator is built for, and not float8, which needs scales beside it.

    >>> is_training_dtype(torch.bfloat16), is_training_dtype(torch.float64)
    (True, False)
    """
    return parse_dtype(dtype) in _TRAINING


def is_integer(dtype: torch.dtype | str) -> bool:
    """Return whether elements are whole numbers, of any width; not `bool`, quantized codes or bare bits.

    >>> is_integer(torch.uint4), is_integer(torch.bool), is_integer(torch.qint8)
    (True, False, False)
    """
    return parse_dtype(dtype) in _INTEGERS


def is_quantized(dtype: torch.dtype | str) -> bool:
    """Return whether a dtype is one of torch's quantized codes, which mean nothing without a scale beside them.

    >>> is_quantized(torch.quint4x2), is_quantized(torch.uint4)
    (True, False)
    """
    return parse_dtype(dtype) in _QUANTIZED


def accumulator_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return the dtype to add up many elements in.

    Args:
        dtype: The dtype of the elements.

    Returns:
        `float32` for every float up to it and for quantized codes (they stand for real numbers), `float64` for itself,
        `int64` for integers of every width and for `bool` (as `torch.sum` does), `complex64` or `complex128` for complex.

    Raises:
        UnsupportedError: Bare bits (`bits8`, ...), on which nothing can be computed.
        UnknownNameError: A text that names no dtype.

    >>> [accumulator_dtype(name) for name in ("bf16", "f64", "u8", "fp8")]
    [torch.float32, torch.float64, torch.int64, torch.float32]
    """
    dtype = parse_dtype(dtype)
    if dtype in _BARE:
        raise UnsupportedError(
            f"{dtype} has no accumulator: its elements are bare bits, which cannot be added.",
            feature=f"accumulating {dtype}",
            remedy="View the tensor as torch.uint8 or unpack it first.",
        )
    if dtype in _INTEGERS or dtype is torch.bool:
        return torch.int64
    return _WIDE.get(dtype, torch.complex64 if dtype in _COMPLEX else torch.float32)
