"""`tensor_to_handle`: a tensor's memory as plain facts, in the forms in which other libraries take it.

The document's path (`candle_to_cubecl_handle`) went through host bytes. A handle copies nothing: it holds the tensor, so
the memory lives as long as the handle or whatever was made from it, and writes are seen on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from bedstone.core.dtype import dtype_name
from bedstone.interop.sharing import TYPE_STRINGS, SharingError, carrier_dtype, check_shareable, copied

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class TensorHandle:
    """The memory of a tensor; made by `tensor_to_handle`, read by `handle_to_tensor` and by other libraries.

    It speaks DLPack (`numpy.from_dlpack(handle)`, `cupy.from_dlpack`, `jax.dlpack.from_dlpack`, ...), NumPy's
    `__array_interface__` on the CPU (`numpy.asarray(handle)`) and `__cuda_array_interface__` on CUDA. For a dtype that
    NumPy lacks, hand over `handle.bits()`.

    Attributes:
        pointer: Address of the first element; 0 when there is none.
        shape: Sizes of the dimensions.
        strides: Steps between neighbours along each dimension, in elements.
        dtype: What the elements are.
        device: Where the memory is.
        nbytes: Bytes of all elements; with gaps between them, the memory they span is larger.
        tensor: Keeps the memory alive; shares it, and nothing else, with the tensor that was handed over.
    """

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    nbytes: int
    tensor: torch.Tensor = field(repr=False)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie without gaps in row-major order."""
        return self.tensor.is_contiguous()

    def bits(self) -> TensorHandle:
        """Return a handle on the same memory as unsigned integers, if NumPy lacks the dtype; else this one.

        `handle_to_tensor(array, dtype=...)` makes it again what it was.

        >>> import numpy as np
        >>> weight = torch.ones(2, dtype=torch.bfloat16)
        >>> np.from_dlpack(tensor_to_handle(weight).bits())
        array([16256, 16256], dtype=uint16)
        """
        carrier = carrier_dtype(self.dtype)
        return self if carrier is self.dtype else _handle_of(self.tensor.view(carrier))

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[Any, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        if self.dtype not in _DLPACK:
            raise SharingError(f"DLPack has no dtype for {dtype_name(self.dtype)}.", remedy="Hand over handle.bits().")
        return self.tensor.__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)

    def __dlpack_device__(self) -> tuple[Any, int]:
        return self.tensor.__dlpack_device__()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        # An AttributeError is what makes hasattr() False; `__array__` then says why.
        return self._interface("cpu")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self._interface("cuda")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        # NumPy comes here only when `__array_interface__` is missing; without this it would wrap the handle itself.
        if self.device.type != "cpu":
            raise SharingError(f"NumPy cannot read memory on {self.device}.", remedy="Call tensor.cpu() first.")
        if self.dtype not in TYPE_STRINGS:
            raise SharingError(f"NumPy has no dtype for {dtype_name(self.dtype)}.", remedy="Hand over handle.bits().")
        import numpy as np

        return np.array(self, dtype=dtype, copy=copy)

    def _interface(self, place: str) -> dict[str, Any]:
        if self.device.type != place or self.dtype not in TYPE_STRINGS:
            raise AttributeError(f"no array interface for {dtype_name(self.dtype)} on {self.device}")
        step = self.dtype.itemsize
        facts = {
            "version": 3,
            "shape": self.shape,
            "typestr": TYPE_STRINGS[self.dtype],
            "data": (self.pointer, False),  # False: may be written
            "strides": None if self.is_contiguous else tuple(stride * step for stride in self.strides),
        }
        if place == "cuda":  # whose work the receiver waits for; 1 is the default stream
            facts["stream"] = torch.cuda.current_stream(self.device).cuda_stream or 1
        return facts

    def __reduce__(self) -> NoReturn:
        raise SharingError(
            "A TensorHandle points into the memory of this process and cannot be pickled or copied.",
            remedy="Send TensorBuffer.from_tensor(tensor) to another process.",
        )


# What torch hands to DLPack as it is. Not bits8 and its kin, which torch refuses; not integers below a byte, which it
# hands over as 8-bit ones, so that the receiver would not know.
_DLPACK = {
    *TYPE_STRINGS,
    torch.bfloat16,
    torch.complex32,
    torch.float4_e2m1fn_x2,
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
}


def tensor_to_handle(tensor: torch.Tensor, *, contiguous: bool = False) -> TensorHandle:
    """Return a handle on the memory of a tensor; nothing is copied unless `contiguous` asks for it.

    Args:
        tensor: Any strided tensor of any shape, dtype but the quantized ones, and device. It must not require gradients
            and its conjugate and negative bits must not be set: a kernel that writes would not know.
        contiguous: Copy if the elements do not lie in row-major order without gaps; the copy is the handle's own.

    Returns:
        The handle, with the strides of the tensor.

    Raises:
        SharingError: The tensor requires gradients, or its conjugate or negative bit is set; says the call to make.
        UnsupportedError: Sparse, quantized, or without memory of its own.
        InvalidConfigError: Not a tensor.

    >>> weight = torch.zeros(2, 3)
    >>> handle = tensor_to_handle(weight.t())
    >>> handle.pointer == weight.data_ptr(), handle.shape, handle.strides, handle.nbytes
    (True, (3, 2), (1, 3), 24)
    >>> tensor_to_handle(torch.ones(2, requires_grad=True))
    Traceback (most recent call last):
    bedstone.interop.sharing.SharingError: `tensor` requires gradients, which cannot follow its memory. \
Call tensor.detach() first.
    """
    check_shareable(tensor)
    plain = tensor.detach()
    if contiguous and not plain.is_contiguous():
        plain = copied(plain, contiguous=True)
    return _handle_of(plain)


def _handle_of(tensor: torch.Tensor) -> TensorHandle:
    return TensorHandle(
        pointer=tensor.data_ptr(),
        shape=tuple(tensor.shape),
        strides=tensor.stride(),
        dtype=tensor.dtype,
        device=tensor.device,
        nbytes=tensor.numel() * tensor.element_size(),
        tensor=tensor,
    )
