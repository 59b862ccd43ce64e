"""`workspace_buffer`: memory that an operation works in, kept from call to call.

glibc gives a large block back when it is freed, so an operation that allocates its temporary at each call pays a page fault for every 4 KiB,
which can cost several times what it computes. A kept buffer pays once. It belongs to the thread, so two threads never share one.
"""

from __future__ import annotations

import threading
import weakref

import torch

_kept = threading.local()
_threads: weakref.WeakValueDictionary[int, _Buffers] = weakref.WeakValueDictionary()


class _Buffers(dict[tuple[str, torch.dtype], torch.Tensor]):
    """Those of one thread; they go with it."""


def workspace_buffer(elements: int, dtype: torch.dtype, device: torch.device, purpose: str) -> torch.Tensor:
    """Return a buffer that is kept for this thread and overwritten by the next call with the same purpose.

    Args:
        elements: How many are needed; the buffer grows to the largest request.
        dtype: Of the elements.
        device: On the CPU the buffer is kept; elsewhere the device's caching allocator does that.
        purpose: Buffers that live at the same time need different names.

    Returns:
        A flat tensor of exactly `elements` elements, contents undefined.

    >>> first = workspace_buffer(10, torch.float32, torch.device("cpu"), "example")
    >>> workspace_buffer(5, torch.float32, torch.device("cpu"), "example").data_ptr() == first.data_ptr()
    True
    """
    if device.type != "cpu":
        return torch.empty(elements, dtype=dtype, device=device)
    buffers = _mine()
    buffer = buffers.get((purpose, dtype))
    if buffer is None or buffer.numel() < elements:
        buffers.pop((purpose, dtype), None)  # before the larger one is made
        with torch.inference_mode(False):  # a buffer made for inference could not be written to afterwards
            buffer = buffers[purpose, dtype] = torch.empty(elements, dtype=dtype, device=device)
    return buffer[:elements]


def free_workspaces() -> None:
    """Give back the buffers that this thread keeps; the next operation makes new ones."""
    _mine().clear()


def kept_workspace_bytes() -> int:
    """Return what all threads keep, in bytes.

    >>> free_workspaces()
    >>> before = kept_workspace_bytes()
    >>> _ = workspace_buffer(256, torch.float32, torch.device("cpu"), "example")
    >>> kept_workspace_bytes() - before
    1024
    """
    return sum(buffer.nbytes for buffers in list(_threads.values()) for buffer in list(buffers.values()))


def _mine() -> _Buffers:
    buffers: _Buffers | None = getattr(_kept, "buffers", None)
    if buffers is None:
        buffers = _kept.buffers = _Buffers()
        _threads[threading.get_ident()] = buffers
    return buffers
