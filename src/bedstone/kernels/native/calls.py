"""What every call of the CPU library shares: whether it can be made, and with what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.kernels.native.library import DTYPES, library, status
from bedstone.kernels.registry import KernelSpec, tell_fallback

if TYPE_CHECKING:
    import torch


def unfit(spec: KernelSpec) -> str:
    """Return why the CPU library cannot take this, or nothing.

    Args:
        spec: Of any operation.
    """
    if spec.device != "cpu":
        return f"the compiled CPU library runs on cpu, not on {spec.device}"
    if spec.dtype not in DTYPES:
        return f"the compiled CPU library has no {spec.dtype}"
    if library() is None:
        found = status()
        tell_fallback("the compiled CPU library", found.reason, found.remedy)
        return f"{found.reason} {found.remedy}"
    return ""


def pointer(tensor: torch.Tensor | None) -> int | None:
    """Return the address of a contiguous tensor; nothing for none.

    Args:
        tensor: A CPU tensor.
    """
    return None if tensor is None else tensor.data_ptr()


def placed(scale: torch.Tensor) -> tuple[int, int]:
    """Return how far apart the scales of two rows and of two blocks are; those of a whole tensor not at all.

    Args:
        scale: `[rows, blocks]` or `[1, 1]`, contiguous.
    """
    return (scale.shape[1] if scale.shape[0] > 1 else 0, 1 if scale.shape[1] > 1 else 0)
