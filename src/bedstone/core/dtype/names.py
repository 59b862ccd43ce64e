"""Short names for dtypes, and every spelling that people use for one.

A dtype has one short name here (`f16`, `bf16`, `i64`, `f8_e4m3fn`) and can be found under that name, under each name that
torch itself has for it (`float16`, `half`, `torch.float16`) and under a few customs of the field (`fp16`, `fp8`), in
any case. `fp8` alone means e4m3fn, the kind that weights and activations are stored in; gradients use e5m2, by name.
"""

from __future__ import annotations

import re

import torch

from bedstone.core.errors import InvalidConfigError, UnknownNameError, nearest

_TORCH_NAMES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}

_PREFIXES = (
    (r"^bfloat(?=\d)", "bf"),
    (r"^float(?=\d)", "f"),
    (r"^uint(?=\d)", "u"),
    (r"^int(?=\d)", "i"),
    (r"^complex", "c"),
)

_CUSTOMS = {
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp64": torch.float64,
    "fp8": torch.float8_e4m3fn,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
    "f8_e4m3": torch.float8_e4m3fn,
    "float8": torch.float8_e4m3fn,
    "float8_e4m3": torch.float8_e4m3fn,
}


def _shortened(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    for pattern, short in _PREFIXES:
        name = re.sub(pattern, short, name)
    return name


_SHORT = {dtype: _shortened(dtype) for dtype in _TORCH_NAMES.values()}
_BY_NAME = {**_CUSTOMS, **_TORCH_NAMES, **{name: dtype for dtype, name in _SHORT.items()}}


def dtype_name(dtype: torch.dtype | str) -> str:
    """Return the short name of a dtype.

    Args:
        dtype: Any `torch.dtype`, or one of its names.

    Returns:
        The name in lower case: `f`, `bf`, `i`, `u` or `c` and the bits, with the variant of a float8 or float4 behind it.

    Raises:
        UnknownNameError: A text that names no dtype.
        InvalidConfigError: Neither a dtype nor a text.

    >>> [dtype_name(dtype) for dtype in (torch.bfloat16, torch.int64, torch.float8_e4m3fn, torch.bool)]
    ['bf16', 'i64', 'f8_e4m3fn', 'bool']
    """
    return _SHORT[parse_dtype(dtype)]


def parse_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return the dtype that a name stands for; a dtype is returned as it is.

    Args:
        dtype: A `torch.dtype`, or a name in any case, with or without `torch.` before it.

    Returns:
        The dtype.

    Raises:
        UnknownNameError: No dtype is called so; the message holds the nearest name.
        InvalidConfigError: Neither a dtype nor a text.

    >>> parse_dtype("BF16"), parse_dtype("torch.half"), parse_dtype("fp8")
    (torch.bfloat16, torch.float16, torch.float8_e4m3fn)
    >>> parse_dtype(torch.int8)
    torch.int8
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if not isinstance(dtype, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
        raise InvalidConfigError(
            f"`dtype` (={dtype!r}) must be a torch.dtype or its name.",
            argument="dtype",
            value=dtype,
            remedy="Pass, for example, torch.bfloat16 or 'bf16'.",
        )
    found = _BY_NAME.get(dtype.strip().lower().removeprefix("torch."))
    if found is None:
        guess = nearest(dtype, _BY_NAME)  # of all spellings, while only the short names are listed
        raise UnknownNameError("dtype", dtype, {*_SHORT.values(), *([guess] if guess else [])})
    return found
