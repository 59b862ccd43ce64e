"""Whether a tensor has memory at all: some look like tensors and have none, and reading their address ends the process."""

from __future__ import annotations

import torch

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def has_memory(tensor: torch.Tensor) -> bool:
    """Tell whether the elements of a tensor lie in memory of its own, so that its address may be read from.

    They do not on the device `meta`, in a fake tensor, a tensor of zeros that autograd never wrote out, a parameter
    without a shape yet, a nested tensor, or a wrapper of other tensors.

    Args:
        tensor: Any strided tensor.

    >>> has_memory(torch.ones(2)), has_memory(torch.ones(2, device="meta"))
    (True, False)
    """
    try:
        if type(tensor) not in _PLAIN and tensor.untyped_storage().device.type == "meta":
            return False  # a fake tensor says another device, its storage does not
        return not (tensor.is_meta or tensor.is_nested) and (tensor.data_ptr() != 0 or tensor.numel() == 0)
    except (RuntimeError, NotImplementedError, ValueError):  # a wrapper has no storage, a lazy parameter no shape
        return False
