"""`TensorBuffer`: a tensor as bytes, shape and dtype, for files and other processes.

This is the document's type, with its promise kept on every machine: the bytes are row-major and little-endian. Memory
that is to be shared within a process goes through a `TensorHandle` instead, without a copy.
"""

from __future__ import annotations

import ctypes
import math
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.device import get_device
from bedstone.core.dtype import bytes_per_element, parse_dtype
from bedstone.core.errors import InvalidConfigError, ShapeMismatchError
from bedstone.core.memory import checked_shape
from bedstone.core.torch_errors import translate_torch_errors
from bedstone.interop.sharing import carrier_dtype, check_dtype, check_memory

if TYPE_CHECKING:
    from bedstone.core.device import DeviceWish


@dataclass(frozen=True, slots=True)
class TensorBuffer:
    r"""A tensor's elements as bytes, row-major and little-endian, with what is needed to read them.

    Args:
        bytes: The elements; `bytearray` and `memoryview` are copied.
        shape: Sizes of the dimensions, each at least 0.
        dtype: What the elements are, or its name; torch's quantized dtypes are refused.

    Raises:
        ShapeMismatchError: The number of bytes is not the number of elements times their size.
        InvalidConfigError: `bytes` are no bytes, or a size is negative, a bool or not whole.
        UnsupportedError: A quantized dtype.

    >>> buffer = TensorBuffer(b"\x00\x00\x80\x3f", (1,), "f32")
    >>> buffer.to_tensor()
    tensor([1.])
    >>> TensorBuffer(b"abc", (2,), torch.bfloat16)
    Traceback (most recent call last):
    bedstone.core.errors.ShapeMismatchError: `bytes` holds 3 bytes, but shape (2,) of torch.bfloat16 takes 4.
    """

    bytes: bytes = field(repr=False)  # may be gigabytes
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __post_init__(self) -> None:
        object.__setattr__(self, "bytes", _as_bytes(self.bytes))
        object.__setattr__(self, "shape", checked_shape(self.shape))
        object.__setattr__(self, "dtype", parse_dtype(self.dtype))
        check_dtype(self.dtype)
        if len(self.bytes) != (expected := self.numel * bytes_per_element(self.dtype)):
            raise ShapeMismatchError(
                f"`bytes` holds {len(self.bytes)} bytes, but shape {self.shape} of {self.dtype} takes {expected}.",
                expected=expected,
                actual=len(self.bytes),
                argument="bytes",
            )

    @property
    def numel(self) -> int:
        """The number of elements; 1 for the empty shape."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return len(self.bytes)

    @classmethod
    def from_tensor(cls, tensor: torch.Tensor) -> TensorBuffer:
        r"""Return a copy of a tensor's numbers as they are now.

        A copy has no history, so gradients do not matter here, and conjugate and negative bits are carried out.

        Args:
            tensor: Any strided tensor on any device, of any dtype but the quantized ones.

        Raises:
            UnsupportedError: Sparse, quantized, or without memory.
            InvalidConfigError: Not a tensor.

        >>> buffer = TensorBuffer.from_tensor(torch.tensor([[1, 2]], dtype=torch.int16))
        >>> buffer, buffer.bytes
        (TensorBuffer(shape=(1, 2), dtype=torch.int16), b'\x01\x00\x02\x00')
        """
        check_memory(tensor)
        plain = tensor.detach().resolve_conj().resolve_neg()
        carried = plain.view(carrier_dtype(plain.dtype)).cpu().contiguous()
        raw = (ctypes.c_char * carried.nbytes).from_address(carried.data_ptr()).raw if carried.numel() else b""
        return cls(_little_endian(raw, plain.dtype, sys.byteorder), tuple(plain.shape), plain.dtype)

    def to_tensor(self, device: DeviceWish = None) -> torch.Tensor:
        r"""Return a new tensor with these numbers.

        Args:
            device: Where to put it, as in `get_device`; `None` is the CPU.

        Raises:
            DeviceNotAvailableError: There is no such device.
            OutOfMemoryError: It does not fit there.

        >>> TensorBuffer(b"\x01\x02", (2,), torch.uint8).to_tensor()
        tensor([1, 2], dtype=torch.uint8)
        """
        place = get_device("cpu" if device is None else device)
        with translate_torch_errors(doing="read a TensorBuffer", device=place):
            carried = torch.empty(self.shape, dtype=carrier_dtype(self.dtype))
            ctypes.memmove(carried.data_ptr(), _little_endian(self.bytes, self.dtype, sys.byteorder), self.nbytes)
            return carried.to(place).view(self.dtype)


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    kind = type(value).__name__
    raise InvalidConfigError(f"`bytes` must be bytes, not a {kind}.", argument="bytes", value=kind)


def _little_endian(raw: bytes, dtype: torch.dtype, byteorder: str) -> bytes:
    """Turn around every number on a big-endian machine, in either direction; a complex number is two."""
    width = bytes_per_element(dtype) // (2 if dtype.is_complex else 1)
    if byteorder == "little" or width == 1:
        return raw
    turned = bytearray(len(raw))
    for place in range(width):
        turned[place::width] = raw[width - 1 - place :: width]
    return bytes(turned)
