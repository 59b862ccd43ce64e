"""torch's errors turned into ours: out of memory with its sizes, everything else with what was being done.

torch reports sizes only inside its text, in a wording of each allocator; they are parsed here, once, for all callers.
The wordings of CUDA, XPU and MPS are those of torch 2.13's sources and were never seen on a GPU by this project.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager

import torch

from bedstone.core.errors import CoreError, FrameworkError, InvalidConfigError, OutOfMemoryError

_UNITS = {
    "bytes": 1,
    "b": 1,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "kb": 2**10,
    "mb": 2**20,
    "gb": 2**30,
}
_SIZE = r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>bytes|KiB|MiB|GiB|TiB|KB|MB|GB|B)\b"
_PATTERNS = {
    "requested_bytes": rf"tried to allocate {_SIZE}",
    "limit_bytes": rf"total capacity of {_SIZE}",
    "free_bytes": rf"of which {_SIZE} is free",
    "allocated_bytes": rf"{_SIZE} is allocated by PyTorch|MPS allocated: {_SIZE.replace('number', 'n2').replace('unit', 'u2')}",
}
_OOM = re.compile(r"out of memory|DefaultCPUAllocator: (can't|not enough)|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
_SMALLER = "Use a smaller batch or sequence, checkpoint activations, or quantize the frozen weights."


def translate_torch_errors(*, doing: str, device: torch.device | str | None = None) -> AbstractContextManager[None]:
    """Turn an error of torch inside the block into a `CoreError` whose `__cause__` is the original.

    Args:
        doing: What the block does, for the message: `allocate the output`.
        device: Where, if known; else read from torch's text.

    Raises:
        OutOfMemoryError: torch ran out of memory; sizes in bytes as far as torch gives them.
        FrameworkError: Any other `RuntimeError` of torch. Our own errors pass unchanged.

    >>> with translate_torch_errors(doing="multiply"):
    ...     torch.ones(2, 3) @ torch.ones(2, 3)
    Traceback (most recent call last):
    bedstone.core.errors.FrameworkError: torch failed to multiply: mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)
    """
    return _Translation(doing, device)


class _Translation(AbstractContextManager[None]):
    # Not @contextmanager: its generator costs three times as much on the path where nothing fails.
    __slots__ = ("device", "doing")

    def __init__(self, doing: str, device: torch.device | str | None) -> None:
        self.doing = doing
        self.device = device

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object, /) -> None:
        if kind is None or not isinstance(error, RuntimeError) or isinstance(error, CoreError):
            return
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError) or _OOM.search(text):
            raise _out_of_memory(text, self.doing, self.device) from error
        raise FrameworkError(f"torch failed to {self.doing}: {text}") from error


def parse_device(device: torch.device | str, *, argument: str = "device") -> torch.device:
    """Return the device that a text names, as torch understands it; whether it exists is not looked at.

    Args:
        device: A `torch.device`, or a text such as `cuda:1`.
        argument: What to call it in the error.

    Raises:
        InvalidConfigError: torch knows no such kind of device.

    >>> parse_device("cuda:1")
    device(type='cuda', index=1)
    >>> parse_device("gpu")
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: `device` (='gpu') is not a device that torch knows. \
Write, for example, 'cpu', 'cuda:0', 'mps' or 'xpu:1'.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise InvalidConfigError(
            f"`{argument}` (={device!r}) is not a device that torch knows.",
            argument=argument,
            value=str(device),
            remedy="Write, for example, 'cpu', 'cuda:0', 'mps' or 'xpu:1'.",
        ) from None


def _out_of_memory(text: str, doing: str, device: torch.device | str | None) -> OutOfMemoryError:
    sizes = {name: _parse_size(pattern, text) for name, pattern in _PATTERNS.items()}
    place = str(device) if device is not None else _device_in(text)
    known = ", ".join(
        f"{name.removesuffix('_bytes')} {size:,} bytes" for name, size in sizes.items() if size is not None
    )
    where = f" on {place}" if place else ""
    said = known or text.partition("\n")[0] or "sizes unknown"
    message = f"Out of memory{where} while trying to {doing}: {said}."
    return OutOfMemoryError(message, **sizes, device=place, remedy=_SMALLER)


def _parse_size(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text, re.IGNORECASE)
    if found is None:
        return None
    number, unit = (group for group in found.groups() if group is not None)
    factor = _UNITS[unit.lower()]
    return round(float(number) * factor) if "." in number else int(number) * factor


def _device_in(text: str) -> str | None:
    if gpu := re.search(r"GPU (\d+) has", text):
        return f"cuda:{gpu[1]}"
    if "DefaultCPUAllocator" in text:
        return "cpu"
    return "mps" if "MPS backend" in text else None
