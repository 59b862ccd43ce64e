"""Conversion between dtypes that refuses to lose a value's size.

`tensor.to(dtype)` never complains: 70,000 becomes inf in float16, 300 becomes 44 in uint8, NaN becomes some integer, and
float8_e4m3fn turns even infinity into 448. Here each of these raises, with the first position where it happens.
Rounding is not overflow: 65,519 becomes 65,504 in float16, and 2.7 becomes 2 in an integer, as in torch.

How it is decided: a float overflows when a finite number does not stay finite; float8_e4m3fn saturates in torch, so there
it overflows beyond the largest number plus half a step. Between integers a number fits if it survives
the way back with its sign. A float fits an integer if its whole part does; the bounds, powers of two, are exact in float64.
The check walks in pieces of a million elements, so its temporary memory is some 40 MB whatever the tensor's size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from bedstone.core.dtype.kinds import bits_per_element, is_integer
from bedstone.core.dtype.names import dtype_name, parse_dtype
from bedstone.core.errors import CoreError, UnsupportedError
from bedstone.core.torch_errors import translate_torch_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 2**20  # elements that are checked at a time
_SATURATES_BEYOND = {torch.float8_e4m3fn: 464.0}  # 448 + 32 / 2; that tie itself is rounded to the even 448


class ConversionOverflowError(CoreError, OverflowError):
    """A number that the target dtype cannot hold.

    Attributes:
        position: Index of the first such number in the tensor.
        number: The number.
        target: The short name of the dtype.
    """

    code = "conversion_overflow"
    position: tuple[int, ...]
    number: complex
    target: str


def safe_convert(tensor: torch.Tensor, dtype: torch.dtype | str, *, refuse_overflow: bool = True) -> torch.Tensor:
    """Return `tensor` in another dtype, having made sure that every number fits.

    Args:
        tensor: Any shape and device; float, complex, integer or bool.
        dtype: The target dtype or its name. To `bool` everything fits: it asks whether a number differs from 0.
        refuse_overflow: `False` converts without looking, exactly as `tensor.to(dtype)`.

    Returns:
        The converted tensor, or `tensor` itself if it already has the dtype. Gradients flow as through `tensor.to`.

    Raises:
        ConversionOverflowError: A finite number would become infinite, NaN or the largest number; an infinity would be
            lost; a number outside an integer's range, or NaN, would become an integer; a negative number would lose its
            sign.
        UnsupportedError: torch cannot convert the dtypes (below a byte, packed or quantized), or a complex number would
            lose its imaginary part.
        UnknownNameError: A text that names no dtype.

    >>> safe_convert(torch.tensor([1.5, -3.0]), "bf16")
    tensor([ 1.5000, -3.0000], dtype=torch.bfloat16)
    >>> safe_convert(torch.tensor([[1.0, 2.0], [7e4, 4.0]]), torch.float16)
    Traceback (most recent call last):
    bedstone.core.dtype.convert.ConversionOverflowError: tensor[1, 0] (=70000.0) would become inf in f16, whose range is \
-65504.0 to 65504.0. Clamp or scale the tensor, choose a wider dtype, or pass refuse_overflow=False.
    """
    target = parse_dtype(dtype)
    if tensor.dtype is target:
        return tensor
    _check_convertible(tensor, target)
    with translate_torch_errors(doing=f"convert {dtype_name(tensor.dtype)} to {dtype_name(target)}"):
        converted = tensor.to(target)
        if refuse_overflow and torch.bool not in {tensor.dtype, target}:
            _refuse_overflow(tensor.detach(), converted.detach())
    return converted


def _check_convertible(tensor: torch.Tensor, target: torch.dtype) -> None:
    for dtype in (tensor.dtype, target):
        if not _has_arithmetic(dtype):
            raise UnsupportedError(
                f"torch cannot convert {dtype_name(tensor.dtype)} to {dtype_name(target)}.",
                feature=f"converting {dtype}",
                remedy=f"Pack or unpack {dtype_name(dtype)} yourself, on a view as torch.uint8.",
            )
    if tensor.is_complex() and not target.is_complex and target is not torch.bool:
        raise UnsupportedError(
            f"Converting {dtype_name(tensor.dtype)} to {dtype_name(target)} would drop the imaginary part.",
            feature="converting complex to real",
            remedy="Take tensor.real, tensor.imag or tensor.abs() first.",
        )


def _has_arithmetic(dtype: torch.dtype) -> bool:
    if is_integer(dtype):
        return bits_per_element(dtype) >= 8  # noqa: PLR2004 - a byte
    return dtype.is_complex or dtype is torch.bool or (dtype.is_floating_point and dtype is not torch.float4_e2m1fn_x2)


def _refuse_overflow(tensor: torch.Tensor, converted: torch.Tensor) -> None:
    source, result = _flat_reals(tensor, converted)
    for start in range(0, source.numel(), _PIECE):
        bad = _overflowed(source[start : start + _PIECE], result[start : start + _PIECE])
        if bad.any():
            first = start + int(bad.to(torch.uint8).argmax())
            raise _overflow(tensor, converted, first // 2 if tensor.is_complex() else first)


def _flat_reals(tensor: torch.Tensor, converted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both as flat real numbers that correspond; a complex number counts as two, its parts."""
    if tensor.is_complex():
        return tuple(torch.view_as_real(t.resolve_conj()).reshape(-1) for t in (tensor, converted))  # pyright: ignore[reportReturnType]
    return tensor.reshape(-1), (converted.real if converted.is_complex() else converted).reshape(-1)


def _overflowed(source: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """Return, for each number, whether it was lost."""
    if not is_integer(result.dtype):
        return _overflowed_float(source.to(torch.float64), result.to(torch.float64), result.dtype)
    if is_integer(source.dtype):
        return (result.to(source.dtype) != source) | (_negative(source) != _negative(result))
    limits = torch.iinfo(result.dtype)
    whole = source.to(torch.float64).trunc()
    return ~((whole >= limits.min) & (whole < float(limits.max + 1)))  # a power of two; NaN fails both


def _overflowed_float(source: torch.Tensor, result: torch.Tensor, target: torch.dtype) -> torch.Tensor:
    beyond = source.abs() > _SATURATES_BEYOND.get(target, math.inf)
    bad = source.isfinite() & (beyond | ~result.isfinite()) | (source.isinf() & ~result.isinf())
    return bad if target.is_signed else bad | (source < 0)


def _negative(numbers: torch.Tensor) -> torch.Tensor:
    return numbers < 0 if numbers.dtype.is_signed else torch.zeros_like(numbers, dtype=torch.bool)


def _overflow(tensor: torch.Tensor, converted: torch.Tensor, flat: int) -> ConversionOverflowError:
    position = tuple(_unravel(flat, tuple(tensor.shape)))
    number, became = tensor[position].item(), converted[position].item()
    target = converted.dtype
    part = target.to_real() if target.is_complex else target
    limits = torch.iinfo(part) if is_integer(part) else torch.finfo(part)
    name = dtype_name(target)
    place = f"tensor[{', '.join(map(str, position))}]" if position else "tensor"
    of_parts = " in each part" if target.is_complex else ""
    return ConversionOverflowError(
        f"{place} (={number}) would become {became} in {name}, whose range{of_parts} is {limits.min} to {limits.max}.",
        remedy="Clamp or scale the tensor, choose a wider dtype, or pass refuse_overflow=False.",
        position=position,
        number=number,
        target=name,
    )


def _unravel(flat: int, shape: tuple[int, ...]) -> Iterator[int]:
    for axis in range(len(shape)):
        behind = math.prod(shape[axis + 1 :])
        yield flat // behind % shape[axis]
