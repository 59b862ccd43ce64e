"""What every call of the CPU library shares: whether it can be made, and with what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.kernels.native.library import DTYPES, library, status
from bedstone.kernels.registry import KernelImpl, KernelOp, KernelSpec, tell_fallback

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import torch

    Body = tuple[Callable[..., Any], Callable[..., int]]


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


def native_first(name: str, describe: Callable[..., KernelSpec], native: Body, reference: Body) -> KernelOp:
    """Return an operation that runs in the CPU library where that can take it, else in plain torch.

    Args:
        name: Of the operation.
        describe: As for `KernelOp`.
        native: What computes it in the library, and the bytes that it needs.
        reference: The same in plain torch.
    """
    return KernelOp(name, describe, KernelImpl("native", *native, unfit), KernelImpl("reference", *reference))


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
