"""Sizes as people write them and as programs count them.

`GB` is 1000^3 and `GiB` is 1024^3, as the standards say. A lone `G` means either, depending on the reader, and a limit
that is off by 7 % fails late, so it is refused.
"""

from __future__ import annotations

import operator
import re
from fractions import Fraction
from typing import TYPE_CHECKING, SupportsIndex

from bedstone.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIXES = "kmgtpe"
_UNITS = {
    "": 1,
    "b": 1,
    "byte": 1,
    "bytes": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate(_PREFIXES, 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate(_PREFIXES, 1)},
}
_SIZE = re.compile(r"(?P<number>[0-9]{1,40}(?:\.[0-9]{1,40})?) *(?P<unit>[a-z]*)", re.IGNORECASE)
_SHOWN = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def parse_bytes(size: int | str, *, argument: str = "size") -> int:
    """Return a size in bytes.

    Args:
        size: Bytes as a whole number, or a text: a decimal number and `B`, `kB`, `MB`, `GB`, `TB`, `PB`, `EB` (powers of
            1000) or `KiB`, `MiB`, `GiB`, `TiB`, `PiB`, `EiB` (powers of 1024), in any case.
        argument: What to call it in the error.

    Returns:
        Bytes, at least 0; a part of a byte is cut off, so that a limit is never more than was written.

    Raises:
        InvalidConfigError: Negative, not a number, an unknown unit, or a letter alone (`8G`).

    >>> parse_bytes("8 GiB"), parse_bytes("1.5kB"), parse_bytes(192)
    (8589934592, 1500, 192)
    """
    if not isinstance(size, str):
        return checked_count(size, argument)
    found = _SIZE.fullmatch(size.strip())
    unit = _UNITS.get(found["unit"].lower()) if found else None
    if found is None or unit is None:
        raise InvalidConfigError(
            f"`{argument}` (={size!r}) must be a number of at least 0 and a unit.",
            argument=argument,
            value=size,
            remedy="Write, for example, '8 GiB' (8 x 1024^3 bytes) or '8 GB' (8 x 1000^3 bytes).",
        )
    return int(Fraction(found["number"]) * unit)


def format_bytes(size: int) -> str:
    """Return a size for people: in the largest binary unit that leaves at least 1, with at most two decimals.

    Args:
        size: Bytes, at least 0.

    Returns:
        A text that `parse_bytes` reads; below 1 KiB it is exact.

    Raises:
        InvalidConfigError: Negative, or not a whole number.

    >>> format_bytes(192), format_bytes(1_207_959_552), format_bytes(8 * 2**30)
    ('192 B', '1.13 GiB', '8 GiB')
    """
    size = checked_count(size, "size")
    power, hundredths = 0, size * 100
    while hundredths >= 1024 * 100 and power < len(_SHOWN) - 1:  # after rounding: 1023.999 KiB is 1 MiB
        power += 1
        hundredths = (size * 100 + 1024**power // 2) // 1024**power
    number = f"{hundredths // 100}.{hundredths % 100:02}".rstrip("0").rstrip(".")
    return f"{number} {_SHOWN[power]}"


def checked_count(value: SupportsIndex, argument: str, *, at_least: int = 0) -> int:
    """Return `value` as a Python integer, which never wraps.

    Args:
        value: A whole number of any type (`int`, a NumPy integer); not a bool, not a float.
        argument: What to call it in the error.
        at_least: The smallest that is allowed.

    Returns:
        The number.

    Raises:
        InvalidConfigError: Not a whole number, or too small.

    >>> checked_count(3, "num_heads")
    3
    >>> checked_count(-1, "num_heads")
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: `num_heads` (=-1) must be a whole number of at least 0.
    """
    if type(value) is int and value >= at_least:  # nearly always
        return value
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number < at_least:
        raise InvalidConfigError(
            f"`{argument}` (={value!r}) must be a whole number of at least {at_least}.", argument=argument, value=value
        )
    return number


def checked_shape(shape: Iterable[SupportsIndex]) -> tuple[int, ...]:
    """Return a shape as a tuple of Python integers.

    Args:
        shape: Sizes of the dimensions, each a whole number of at least 0; empty for a single number.

    Returns:
        The sizes.

    Raises:
        InvalidConfigError: `shape` is not a sequence, or a size is negative, a bool or not whole; it is named.

    >>> checked_shape([2, 3])
    (2, 3)
    >>> checked_shape((2, -3))
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: `shape[1]` (=-3) must be a whole number of at least 0.
    """
    try:
        sizes = tuple(shape)
    except TypeError:
        raise InvalidConfigError(
            f"`shape` (={shape!r}) must be a sequence of whole numbers.",
            argument="shape",
            value=shape,
            remedy="Write (n,) for one dimension and () for a single number.",
        ) from None
    for size in sizes:
        if type(size) is not int or size < 0:
            return tuple(checked_count(size, f"shape[{axis}]") for axis, size in enumerate(sizes))
    return sizes  # pyright: ignore[reportReturnType] - each is an int
