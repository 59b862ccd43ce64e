"""What every call of the CPU library shares: whether it can be made, and with what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.core.errors import DeviceMismatchError
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


def pointer(tensor: torch.Tensor | None, argument: str = "weight") -> int | None:
    """Return the address of a contiguous tensor; nothing for none.

    The library reads what it is given: an address on another device would end the process.

    Args:
        tensor: A CPU tensor.
        argument: What a message calls it.

    Raises:
        DeviceMismatchError: It lies elsewhere.
    """
    if tensor is None:
        return None
    if not tensor.is_cpu:
        remedy = "The input lies on the CPU: move one of both with `.to(...)`."
        raise DeviceMismatchError(expected="cpu", actual=str(tensor.device), argument=argument, remedy=remedy)
    return tensor.data_ptr()


def bias_fits(bias: torch.Tensor | None, x: torch.Tensor) -> bool:
    """Return whether the library can add a bias: there is none, or it has the dtype of the input.

    Args:
        bias: Of a product.
        x: Its input.
    """
    return bias is None or bias.dtype is x.dtype


def placed(scale: torch.Tensor) -> tuple[int, int]:
    """Return how far apart the scales of two rows and of two blocks are; those of a whole tensor not at all.

    Args:
        scale: `[rows, blocks]` or `[1, 1]`, contiguous.
    """
    return (scale.shape[1] if scale.shape[0] > 1 else 0, 1 if scale.shape[1] > 1 else 0)
