"""What every call of the CPU library shares: whether it can be made, and with what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.kernels.choice import tell_fallback
from bedstone.kernels.implementation import KernelImpl
from bedstone.kernels.native.library import DTYPES, library, status

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import torch


def compiled(call: Callable[..., Any], workspace: Callable[..., int], **statements: Any) -> KernelImpl:
    """Return an implementation that runs in the CPU library, under the name `native` unless another one is stated.

    Args:
        call: Computes it in the library.
        workspace: The bytes that it needs.
        statements: Fields of `KernelImpl` that differ.
    """
    made = KernelImpl("native", call, workspace, devices=("cpu",), dtypes=tuple(DTYPES), missing=_missing)
    return made.but(**statements)


def _missing() -> str:
    """Why the library does not run here; said out loud, since a user did not choose that."""
    if library() is not None:
        return ""
    found = status()
    tell_fallback("the compiled CPU library", found.reason, found.remedy)
    return f"{found.reason} {found.remedy}"


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
