"""Fresh large outputs without the price of their page faults.

glibc gives large blocks back when they are freed, so each new weight-sized tensor faults in again, 4 KiB at a time: 40 of
the 49 ms of a 64 MiB dequantization. Asking Linux for huge pages (`madvise(MADV_HUGEPAGE)`) takes one fault for 2 MiB.
It is a hint: where it means nothing, nothing happens.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MADV_HUGEPAGE = 14
_HUGE_PAGE = 2 * 2**20
_WORTH_BYTES = 4 * _HUGE_PAGE


def empty_output(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an uninitialised tensor; a large one on a Linux CPU asks for huge pages.

    Args:
        shape: Its shape.
        dtype: Its dtype.
        device: Its device.

    >>> empty_output((2, 3), torch.bfloat16, torch.device("cpu")).shape
    torch.Size([2, 3])
    """
    tensor = torch.empty(tuple(shape), dtype=dtype, device=device)
    advise = _madvise() if device.type == "cpu" and tensor.nbytes >= _WORTH_BYTES else None
    if advise is not None:
        start = -(-tensor.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        stop = (tensor.data_ptr() + tensor.nbytes) // _HUGE_PAGE * _HUGE_PAGE
        advise(start, stop - start, _MADV_HUGEPAGE)  # a refusal costs the faults that there were anyway
    return tensor


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
