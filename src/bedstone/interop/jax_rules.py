"""What JAX does to memory that it is handed, found out by trying, and therefore said before it is handed over.

JAX cuts 64-bit numbers to 32 bits without a word while its 64-bit mode is off. On a CPU it copies memory whose address is
no multiple of 64 bytes. It takes any order of the dimensions, but neither gaps nor elements that are there twice.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import torch

from bedstone.interop.sharing import Obstacle

if TYPE_CHECKING:
    from collections.abc import Iterable

_CUT = {torch.int64: "torch.int32", torch.uint64: "torch.uint32", torch.float64: "torch.float32"}
_CUT |= {torch.complex128: "torch.complex64"}
_ALIGNMENT = 64  # bytes; XLA's minimum on a CPU, and where torch's own allocations lie


def hand_over(tensor: torch.Tensor) -> Any:
    """Return a JAX array on the memory of a tensor; raises where JAX would copy."""
    from jax.dlpack import from_dlpack

    return from_dlpack(tensor, copy=False)


def obstacle(tensor: torch.Tensor) -> Obstacle | None:
    """Say why JAX cannot have a tensor: it would change the numbers."""
    if tensor.dtype not in _CUT or _has_64_bits():
        return None
    return Obstacle(
        "setting",
        f"JAX would cut {tensor.dtype} to {_CUT[tensor.dtype]} without a word: its 64-bit numbers are off.",
        f'Call jax.config.update("jax_enable_x64", True), or tensor.to({_CUT[tensor.dtype]}) first.',
    )


def copy_reason(tensor: torch.Tensor) -> str:
    """Say why JAX cannot take the memory of a tensor as it is; empty when it can.

    >>> copy_reason(torch.ones(4, 4).t()), copy_reason(torch.ones(4, 4)[:, ::2])
    ('', 'JAX takes no gaps between elements and none twice, and the strides are (4, 2)')
    """
    if not tensor.is_contiguous() and not is_dense(tensor.shape, tensor.stride()):
        return f"JAX takes no gaps between elements and none twice, and the strides are {tensor.stride()}"
    if tensor.is_cpu and tensor.numel() and (past := tensor.data_ptr() % _ALIGNMENT):
        return f"JAX takes multiples of {_ALIGNMENT} bytes for an address, and this one is {past} bytes past"
    return ""


def is_dense(shape: Iterable[int], strides: Iterable[int]) -> bool:
    """Tell whether elements lie side by side in some order of the dimensions, each once.

    Args:
        shape: Sizes of the dimensions, none of them 0.
        strides: Steps along them, in elements.

    >>> is_dense((2, 3), (1, 2)), is_dense((2, 3), (6, 2)), is_dense((2, 3), (0, 1))
    (True, False, False)
    """
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _has_64_bits() -> bool:
    jax = sys.modules.get("jax")
    if jax is not None:
        return bool(jax.config.jax_enable_x64)
    return os.environ.get("JAX_ENABLE_X64", "").lower() in {"y", "yes", "t", "true", "on", "1"}  # as JAX will read it
