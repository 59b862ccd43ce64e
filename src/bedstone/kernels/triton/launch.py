"""Where and how a kernel is launched."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

UNFUSED = {"enable_fp_fusion": False}
"""Options of a kernel whose result has the bits of plain torch: a fused multiply-add rounds once where torch rounds twice."""
FUSED = {"enable_fp_fusion": True}
"""Options of a kernel that sums. Said, since releases of Triton differ in what they do unasked."""


def on_device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Return a context in which the device of a tensor is the current one: Triton launches there.

    Args:
        tensor: On a CPU, where Triton's interpreter runs, nothing happens.

    >>> with on_device_of(torch.ones(1)):
    ...     pass
    """
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
