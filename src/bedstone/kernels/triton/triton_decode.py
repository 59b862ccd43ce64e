"""Device functions that read a packed weight: where an element lies, what its code stands for, its scale.

Each follows the arithmetic of the format's `reference.py`, operation by operation, so that values have the same bits; a kernel that calls
them must be launched without fused multiply-add where it adds.
"""

# pyright: reportArgumentType=false
# Triton's types are those of the compiled language, which a checker of Python cannot know.

from __future__ import annotations

import triton
import triton.language as tl

_TINY = tl.constexpr(2.0**-100)  # as in kernels/eightbit/reference.py
_LIFT = tl.constexpr(2.0**64)
_LARGEST = tl.constexpr(3.4028234663852886e38)
_E4M3_NAN = tl.constexpr(127)  # all bits but the sign
_NEARLY_ONE = tl.constexpr(1 - 2.0**-23)


@triton.jit
def column_of(place, plane, columns, FORMAT: tl.constexpr):  # noqa: ANN001, ANN201, N803
    """Return the column of an element of a row, from its byte and its plane; past the last column where there is none."""
    if FORMAT == "nibbles":
        column = 2 * place + plane
    elif FORMAT == "trits":
        whole = columns // 128 * 128
        stride = (columns - whole + 3) // 4
        rest = place - whole // 4
        in_chunk = place // 32 * 128 + plane * 32 + place % 32
        column = tl.where(rest < 0, in_chunk, whole + plane * stride + rest)
    else:
        column = place
    return column


@triton.jit
def load_bytes(codes, row, place, columns, row_bytes, mask, FORMAT: tl.constexpr):  # noqa: ANN001, ANN201, N803
    """Return bytes of rows as int32; 0 where the mask says no. `row` is int64."""
    where = row * row_bytes + place
    if FORMAT == "odd nibbles":
        where = (row * columns + place) // 2
    return tl.load(codes + where, mask=mask, other=0).to(tl.int32)


@triton.jit
def load_scales(scales, row, column, columns, row_step, mask, FORMAT: tl.constexpr, BLOCK_SIZE: tl.constexpr):  # noqa: ANN001, ANN201, N803
    """Return the scale of each element; 0 where the mask says no."""
    if FORMAT == "nibbles" or FORMAT == "odd nibbles":  # noqa: PLR1714 - Triton knows no `in`
        where = (row * columns + column) // BLOCK_SIZE
    elif BLOCK_SIZE == 0:
        where = row * row_step + column * 0
    else:
        where = row * row_step + column // BLOCK_SIZE
    return tl.load(scales + where, mask=mask, other=0.0)


@triton.jit
def values_of(byte, scale, row, place, plane, columns, table, FORMAT: tl.constexpr, LIMIT: tl.constexpr):  # noqa: ANN001, ANN201, N803
    """Return dense float32 elements."""
    if FORMAT == "nibbles":
        value = tl.load(table + ((byte >> (4 - 4 * plane)) & 15)) * scale
    elif FORMAT == "odd nibbles":
        odd = ((row * columns + place) % 2).to(tl.int32)
        value = tl.load(table + ((byte >> (4 - 4 * odd)) & 15)) * scale
    elif FORMAT == "trits":
        value = (((byte >> (2 * plane)) & 3) - 1).to(tl.float32) * scale
    elif FORMAT == "int8":
        value = _scaled(byte.to(tl.int8).to(tl.float32), scale, LIMIT)
    else:
        value = _scaled(_float8(byte, FORMAT), scale, LIMIT)
    return value


@triton.jit
def _float8(byte, FORMAT: tl.constexpr):  # noqa: ANN001, ANN202, N803
    """Return a float8 as float32, by way of float16, which has both its fields: not every GPU knows float8 itself."""
    if FORMAT == "e5m2":
        value = (byte << 8).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    else:
        magnitude = byte & 127
        half = (magnitude << 7).to(tl.int16).to(tl.float16, bitcast=True)
        value = half.to(tl.float32) * 256.0  # the exponents' biases, 15 and 7
        value = tl.where(magnitude == _E4M3_NAN, float("nan"), value)
        value = tl.where(byte > _E4M3_NAN, -value, value)
    return value


@triton.jit
def _scaled(code, absmax, LIMIT: tl.constexpr):  # noqa: ANN001, ANN202, N803
    """Return code * (absmax / limit), as `_unscale_` of kernels/eightbit/reference.py."""
    tiny = (absmax < _TINY) & (absmax > 0)
    lifted = tl.where(tiny, absmax * _LIFT, absmax)
    scale = tl.div_rn(lifted, tl.full(lifted.shape, LIMIT, tl.float32))
    most = _LARGEST / LIMIT * _NEARLY_ONE
    scale = tl.where(scale > most, most, scale)  # not a minimum, which would hide NaN
    value = code * scale
    return tl.where(tiny, value * (1 / _LIFT), value)
