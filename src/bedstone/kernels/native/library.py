"""The compiled CPU library: found, loaded and asked by name, never at import.

It has a C ABI and links neither torch nor Python, so one file serves every version of both. Where it is missing (no compiler when
bedstone was installed) or of another version, every operation takes plain torch instead, with the same results up to rounding; `status`
says why, `bedstone doctor` repeats it.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bedstone.core.errors import UnknownNameError
from bedstone.kernels.policies import tell_changed

ABI = 3
NAME = "libbedstone_cpu.so"
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The floating dtypes that the library reads and writes, by their number there."""

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_PLACED = (_SIZE, _SIZE, _SIZE)  # row stride, block stride, block
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "quantize_4bit": (_POINTER, _INT, _SIZE, _SIZE, _POINTER, _POINTER, _POINTER, _POINTER, _INT),
    "dequantize_4bit": (_POINTER, _POINTER, _POINTER, _SIZE, _SIZE, _SIZE, _POINTER, _INT, _INT),
    **dict.fromkeys(
        ("linear_4bit", "linear_4bit_int8"),
        (_POINTER, _INT, _SIZE, _POINTER, _POINTER, _POINTER, _SIZE, _SIZE, _SIZE, _POINTER, _POINTER, _INT),
    ),
    "dequantize_absmax": (_POINTER, _POINTER, ctypes.c_float, _POINTER, _SIZE, _POINTER, _INT),
    "quantize_8bit": (_POINTER, _INT, _SIZE, _SIZE, _SIZE, _INT, _INT, _POINTER, _POINTER, _INT),
    "dequantize_8bit": (_POINTER, _INT, _POINTER, *_PLACED, _SIZE, _SIZE, _POINTER, _INT, _INT),
    "linear_8bit": (
        *(_POINTER, _INT, _SIZE, _POINTER, _INT, _POINTER, *_PLACED, _SIZE, _SIZE, _POINTER, _POINTER, _INT),
    ),
    "quantize_ternary": (_POINTER, _INT, _SIZE, _SIZE, _POINTER, *_PLACED, _POINTER, _INT),
    "dequantize_ternary": (_POINTER, _POINTER, *_PLACED, _SIZE, _SIZE, _POINTER, _INT, _INT),
    "linear_4bit_rounded": (
        *(_POINTER, _INT, _SIZE, _POINTER, _POINTER, _POINTER, _SIZE, _SIZE, _SIZE, _POINTER, _POINTER, _POINTER, _INT),
    ),
    "linear_int8_rounded": (
        *(_POINTER, _INT, _SIZE, _POINTER, _POINTER, *_PLACED, _SIZE, _SIZE, _POINTER, _POINTER, _POINTER, _INT),
    ),
    "linear_ternary_rounded": (
        *(_POINTER, _INT, _SIZE, _POINTER, _POINTER, _SIZE, _SIZE, _SIZE, _POINTER, _POINTER, _POINTER, _INT),
    ),
    "input_grad_4bit_rounded": (
        *(_POINTER, _INT, _SIZE, _POINTER, _POINTER, _POINTER, _SIZE, _SIZE, _SIZE, _POINTER, _POINTER, _INT),
    ),
    "rounded_scratch": (_SIZE, _SIZE, _INT),
    **dict.fromkeys(
        ("linear_ternary", "linear_ternary_int8"),
        (_POINTER, _INT, _SIZE, _POINTER, _POINTER, _SIZE, _SIZE, _SIZE, _POINTER, _POINTER, _INT),
    ),
}


@dataclass(frozen=True, slots=True)
class NativeStatus:
    """Whether the compiled library runs here.

    Attributes:
        isa: The instruction set that it uses: `avx512_vnni`, `avx512`, `avx2`, `neon` or `portable`; empty when it does not run.
        reason: Why it does not run; empty when it does.
        remedy: What to do about that.
    """

    isa: str
    reason: str = ""
    remedy: str = ""


def status() -> NativeStatus:
    """Return whether the compiled library runs here, and with which instruction set; loads it if nobody has.

    >>> bool(status().isa) != bool(status().reason)
    True
    """
    loaded = _load()
    return loaded if isinstance(loaded, NativeStatus) else NativeStatus(loaded.bs_name().decode())


def library() -> Any:
    """Return the library as `ctypes` has it, or `None` where it does not run.

    Each function of `SIGNATURES` has the prefix `bs_` in it.
    """
    loaded = _load()
    return None if isinstance(loaded, NativeStatus) else loaded


def use_isa(name: str) -> None:
    """Let the library use another instruction set from now on: to compare them, or to leave one that misbehaves.

    Args:
        name: One that this CPU has: `avx512_vnni`, `avx512`, `avx2`, `neon`, `portable`.

    Raises:
        UnknownNameError: The CPU or this build has none of that name, or there is no library.
    """
    loaded = library()
    if loaded is None or not loaded.bs_use(name.encode()):
        raise UnknownNameError("instruction set of the CPU library", name, () if loaded is None else isas())
    tell_changed()  # which implementation is the best one depends on it


def isas() -> tuple[str, ...]:
    """Return the instruction sets that the library has and this CPU runs, the best one first; empty where it does not run."""
    loaded = library()
    if loaded is None:
        return ()
    before = loaded.bs_name()
    found = tuple(
        name for name in ("avx512_vnni", "avx512", "avx2", "neon", "portable") if loaded.bs_use(name.encode())
    )
    loaded.bs_use(before)
    return found


@functools.cache
def _load() -> Any:
    """The library, or why there is none."""
    path = _find()
    if path is None:
        reason = f"bedstone was installed without its compiled CPU library ({NAME}): there was no C++ compiler."
        return NativeStatus("", reason, "Install g++, then bedstone again: `pip install --force-reinstall --no-deps`.")
    try:
        loaded = ctypes.CDLL(str(path))
        abi = loaded.bs_abi()
    except (OSError, AttributeError) as error:
        return NativeStatus("", f"The compiled CPU library {path} does not load: {error}.", "Install bedstone again.")
    if abi != ABI:
        reason = f"The compiled CPU library {path} has version {abi}, this bedstone needs {ABI}."
        return NativeStatus("", reason, "Install bedstone again.")
    loaded.bs_name.restype = ctypes.c_char_p
    for name, arguments in SIGNATURES.items():
        function = getattr(loaded, f"bs_{name}")
        function.argtypes, function.restype = arguments, None
    loaded.bs_rounded_scratch.restype = _SIZE
    return loaded


def _find() -> Path | None:
    import bedstone.kernels.native as package

    return next((path for folder in package.__path__ if (path := Path(folder) / NAME).is_file()), None)
