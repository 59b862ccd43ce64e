"""`allocate_output_buffer`: memory for a kernel to write into, made once before a loop.

The original returned host bytes. This is a tensor on the device where the kernel runs: pass its handle, or use it as `out=`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

import torch

from bedstone.core.device import get_device
from bedstone.core.dtype import parse_dtype
from bedstone.core.errors import OutOfMemoryError
from bedstone.core.memory import checked_shape, estimate_tensor_bytes
from bedstone.core.torch_errors import translate_torch_errors
from bedstone.interop.sharing import carrier_dtype, check_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bedstone.core.device import DeviceWish

_LARGEST = 2**63 - 1  # what torch can count


def allocate_output_buffer(
    shape: Iterable[SupportsIndex], dtype: torch.dtype | str, device: DeviceWish = None
) -> torch.Tensor:
    """Return a contiguous tensor whose content is not set, for a kernel to fill.

    Args:
        shape: Sizes of the dimensions, each at least 0.
        dtype: What the elements are, or its name; torch's quantized dtypes are refused.
        device: Where, as in `get_device`: `None` is what the environment asks for, an explicit one must exist.

    Returns:
        The tensor, which does not require gradients.

    Raises:
        InvalidConfigError: A size is negative, a bool or not whole.
        UnknownNameError: No dtype has this name.
        UnsupportedError: A quantized dtype.
        DeviceNotAvailableError: There is no such device.
        OutOfMemoryError: It does not fit there, or no memory could ever hold it; carries the bytes that were asked for.

    >>> out = allocate_output_buffer((2, 3), "bf16", "cpu")
    >>> out.shape, out.dtype, out.is_contiguous()
    (torch.Size([2, 3]), torch.bfloat16, True)
    """
    sizes, kind = checked_shape(shape), parse_dtype(dtype)
    check_dtype(kind)
    place = get_device(device)
    requested = estimate_tensor_bytes(sizes, carrier_dtype(kind))
    if max(requested, *sizes, 0) > _LARGEST:
        raise OutOfMemoryError(
            f"Out of memory on {place}: a tensor of shape {sizes} and {kind} takes {requested:,} bytes.",
            requested_bytes=requested,
            device=str(place),
            remedy=f"No size may exceed {_LARGEST:,}.",
        )
    with translate_torch_errors(doing=f"allocate an output of shape {sizes} and {kind}", device=place):
        return torch.empty(sizes, dtype=carrier_dtype(kind), device=place).view(kind)
