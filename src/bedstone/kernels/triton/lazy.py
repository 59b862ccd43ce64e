"""Implementations that run in Triton: what they need, and their import when they are first called."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels.implementation import KernelImpl

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INSTALL = "pip install 'bedstone[kernels]'"


def in_triton(module: str, function: str, workspace: Callable[..., int], **statements: Any) -> KernelImpl:
    """Return an implementation that runs in Triton on a CUDA or ROCm device.

    The oldest device is the oldest that the tests compile for.

    Args:
        module: The one that has it, by its whole name; it may import Triton.
        function: Its name there, and its arguments those of the operation.
        workspace: The bytes that it needs.
        statements: Fields of `KernelImpl` that differ.

    >>> in_triton("bedstone.kernels.fourbit.triton_calls", "linear", lambda *_: 0).devices
    ('cuda',)
    """
    made = KernelImpl(
        "triton",
        imported(module, function),
        workspace,
        devices=("cuda",),
        dtypes=DTYPES,
        capability=(8, 0),
        packages=("triton",),
        install=INSTALL,
    )
    return made.but(**statements)


def imported(module: str, function: str) -> Callable[..., Any]:
    """Return a function that imports another one when it is first called.

    Args:
        module: By its whole name.
        function: Its name there.

    >>> imported("math", "sqrt")(9.0)
    3.0
    """

    @functools.cache
    def found() -> Callable[..., Any]:
        return getattr(importlib.import_module(module), function)

    def call(*args: Any) -> Any:
        return found()(*args)

    return call
