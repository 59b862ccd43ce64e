"""What the kits say when something is not so."""

from __future__ import annotations

from typing import Any

import torch


def require(condition: bool, message: str) -> None:
    """Raise AssertionError with the message, unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def listed(result: Any) -> list[torch.Tensor]:
    """Return the tensors of a result, which is one or a tuple of them."""
    return list(result) if isinstance(result, tuple) else [result]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Tell whether two tensors hold the same bytes.

    >>> same_bits(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
    True
    """
    return torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))


def told(tensor: torch.Tensor) -> str:
    """Return dtype, shape and device as text."""
    return f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
