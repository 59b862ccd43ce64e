"""`handle_to_tensor`: a tensor on memory that is already there.

It accepts what other libraries have and checks what the caller expects of it. Nothing is converted or moved: where dtype,
device or shape differ from what was asked, that is an error, since a copy would break the tie between the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsIndex

import torch

from bedstone.core.dtype import dtype_name, parse_dtype
from bedstone.core.errors import DeviceMismatchError, InvalidConfigError, ShapeMismatchError
from bedstone.core.memory import checked_shape
from bedstone.core.protocols import lies_on
from bedstone.core.torch_errors import parse_device
from bedstone.interop.buffer import TensorBuffer
from bedstone.interop.cuda_interface import tensor_from_cuda_interface
from bedstone.interop.dlpack import tensor_from_dlpack
from bedstone.interop.handle import TensorHandle, tensor_to_handle
from bedstone.interop.sharing import carrier_dtype, copied

if TYPE_CHECKING:
    from collections.abc import Iterable


def handle_to_tensor(
    source: TensorHandle | TensorBuffer | torch.Tensor | Any,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    shape: Iterable[SupportsIndex] | None = None,
    copy: bool = False,
) -> torch.Tensor:
    """Return a tensor on the memory of `source`: same address, same strides, writes seen on both sides.

    Args:
        source: A `TensorHandle`, a tensor, a NumPy, JAX, Warp or CuPy array, a TVM-FFI tensor, any object with `__dlpack__`,
            or on a GPU with `__cuda_array_interface__` (Numba); its memory lives as long as the tensor. A JAX array must
            not be written through it, though nothing prevents it. A `TensorBuffer` is copied always, since its bytes
            cannot change.
        dtype: What the elements must be. An unsigned integer of the same width becomes a dtype that NumPy lacks
            (`bfloat16`, float8, ...), bit for bit, still without a copy.
        device: Where the memory must be; without a number, any device of that kind. For a buffer: where to put it.
        shape: The shape that it must have.
        copy: Return a private copy: for memory that is read-only or at an odd address.

    Returns:
        The tensor, which does not require gradients.

    Raises:
        InvalidConfigError: `source` is none of these, or has another dtype; `device` names none.
        ShapeMismatchError: It has another shape.
        DeviceMismatchError: It lies on another device.
        SharingError: Its memory cannot be shared (read-only, negative strides, odd address, byte order, gradients).

    >>> import numpy as np
    >>> array = np.arange(6, dtype=np.float32).reshape(2, 3)
    >>> tensor = handle_to_tensor(array.T, shape=(3, 2))
    >>> tensor.data_ptr() == array.ctypes.data, tensor.stride()
    (True, (1, 3))
    >>> handle_to_tensor(np.array([16256], dtype=np.uint16), dtype="bf16")
    tensor([1.], dtype=torch.bfloat16)
    """
    if isinstance(source, TensorBuffer):
        tensor = source.to_tensor(device)
    elif isinstance(source, (TensorHandle, torch.Tensor)):
        handle = source if isinstance(source, TensorHandle) else tensor_to_handle(source)
        tensor = copied(handle.tensor) if copy else handle.tensor.detach()
    elif hasattr(source, "__dlpack__") and not isinstance(source, type):
        tensor = tensor_from_dlpack(source, copy=copy)
    elif hasattr(source, "__cuda_array_interface__") and not isinstance(source, type):
        tensor = tensor_from_cuda_interface(source, copy=copy)
    else:
        raise InvalidConfigError(
            f"`source` (a {type(source).__name__}) must be a TensorHandle, a TensorBuffer, a tensor, or offer __dlpack__.",
            argument="source",
            value=type(source).__name__,
        )
    if device is not None and not isinstance(source, TensorBuffer):
        _check_device(tensor, device)
    tensor = tensor if dtype is None else _as_dtype(tensor, parse_dtype(dtype))
    if shape is not None and tuple(tensor.shape) != (expected := checked_shape(shape)):
        raise ShapeMismatchError(expected=expected, actual=tuple(tensor.shape), argument="source")
    return tensor


def _check_device(tensor: torch.Tensor, wanted: torch.device | str) -> None:
    expected = parse_device(wanted)
    if not lies_on(tensor.device, expected):
        raise DeviceMismatchError(
            expected=str(expected),
            actual=str(tensor.device),
            argument="source",
            remedy=f"Take it where it is and call .to({str(expected)!r}), which copies.",
        )


def _as_dtype(tensor: torch.Tensor, wanted: torch.dtype) -> torch.Tensor:
    if tensor.dtype is wanted:
        return tensor
    if tensor.dtype is carrier_dtype(wanted):  # which differs from `wanted` only where NumPy lacks it
        return tensor.view(wanted)
    raise InvalidConfigError(
        f"`source` has dtype {dtype_name(tensor.dtype)}, expected {dtype_name(wanted)}.",
        argument="dtype",
        value=dtype_name(tensor.dtype),
        remedy=f"Take it as it is and call .to({wanted}), which copies.",
    )
