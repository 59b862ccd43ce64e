"""Reads what a DLPack capsule says before torch takes it.

`torch.from_dlpack` (2.13) ends the whole process on a negative stride (an uncaught C++ exception), hands out writable
tensors on read-only memory, and takes memory whose address does not fit the dtype. So the capsule's header is read
first; it is a C struct whose layout the DLPack standard fixes.

References:
    DLPack, `include/dlpack/dlpack.h`, versions 0.8 and 1.0, https://github.com/dmlc/dlpack.
    The order of arguments tried in `_export` follows `torch/utils/dlpack.py` (torch 2.13).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch

from bedstone.core.torch_errors import translate_torch_errors
from bedstone.interop.sharing import SharingError

_CUDA, _ROCM = 2, 10  # DLDeviceType
_READ_ONLY, _COPIED = 1, 2  # bits of DLManagedTensorVersioned.flags


# Prototypes of our own: argtypes set on ctypes.pythonapi would hold for everybody in the process.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _DLTensor),
    )


@dataclass(frozen=True, slots=True)
class CapsuleFacts:
    """What a capsule says of its memory: address, sizes, steps in elements, bytes of an element, flags."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    itemsize: int
    read_only: bool
    copied: bool

    @property
    def filled(self) -> bool:
        """Whether there is any element."""
        return 0 not in self.shape

    @property
    def misaligned(self) -> bool:
        """Whether the address is no multiple of an element's size."""
        return self.filled and self.itemsize > 0 and self.pointer % self.itemsize != 0


def tensor_from_dlpack(source: Any, *, copy: bool) -> torch.Tensor:
    """Return a tensor on the memory of any object with `__dlpack__`.

    Args:
        source: The object; its memory lives as long as the tensor.
        copy: Return a private copy instead; `False` never copies.

    Returns:
        The tensor, with the shape and strides of the object.

    Raises:
        SharingError: The object refuses, or its memory is read-only, has negative strides or lies at an odd address,
            and no copy was asked for.

    >>> import numpy as np
    >>> array = np.zeros(3, dtype=np.float32)
    >>> tensor = tensor_from_dlpack(array, copy=False)
    >>> tensor[1] = 7
    >>> array
    array([0., 7., 0.], dtype=float32)
    """
    capsule = _export(source, copy=copy)
    facts = capsule_facts(capsule)
    _check(facts, type(source).__name__, copy=copy)
    with translate_torch_errors(doing=f"take the memory of a {type(source).__name__}"):
        try:
            tensor = torch.from_dlpack(capsule)
        except (BufferError, ValueError) as error:
            raise _refused(source, error) from error
        done = facts.copied and not facts.read_only and not facts.misaligned
        return tensor.clone() if copy and not done else tensor


def capsule_facts(capsule: object) -> CapsuleFacts:
    """Return what an unused DLPack capsule of either version says; the capsule stays usable.

    Raises:
        SharingError: It is no such capsule, or somebody has taken the memory out of it already.
    """
    if _is_valid(capsule, b"dltensor_versioned"):
        versioned = _Versioned.from_address(_get_pointer(capsule, b"dltensor_versioned"))
        tensor, flags = versioned.tensor, versioned.flags
    elif _is_valid(capsule, b"dltensor"):
        tensor, flags = _DLTensor.from_address(_get_pointer(capsule, b"dltensor")), 0
    else:
        raise SharingError(
            f"__dlpack__ returned a {type(capsule).__name__} that is no unused DLPack capsule.",
            remedy="A capsule can be taken once; the object must make a new one at each call.",
        )
    return CapsuleFacts(
        pointer=(tensor.data or 0) + tensor.byte_offset,
        shape=tuple(tensor.shape[: tensor.ndim]),
        strides=tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None,
        itemsize=-(-tensor.bits * tensor.lanes // 8),
        read_only=bool(flags & _READ_ONLY),
        copied=bool(flags & _COPIED),
    )


def _export(source: Any, *, copy: bool) -> object:
    """Ask for a capsule in the newest form that the object knows; `copy=False` means never."""
    stream = _stream(source)
    last: Exception | None = None
    for options in ({"max_version": (1, 0), "copy": copy}, {"max_version": (1, 0)}, {}):
        try:
            return source.__dlpack__(**stream, **options)
        except TypeError as error:  # an older form of the protocol, which lacks these arguments
            last = error
        except (BufferError, ValueError, RuntimeError) as error:
            raise _refused(source, error) from error
    raise _refused(source, last) from last


def _refused(source: Any, why: object) -> SharingError:
    return SharingError(
        f"The memory of a {type(source).__name__} cannot be shared through DLPack: {why}",
        remedy="Convert it to a plain numeric dtype in native byte order, or copy it, before handing it over.",
    )


def _stream(source: Any) -> dict[str, int]:
    """The stream that will use the memory, so that the producer's work on it is finished first."""
    try:
        kind, index = (int(part) for part in source.__dlpack_device__())
    except (AttributeError, TypeError, ValueError) as error:
        raise _refused(source, error) from error
    if kind not in {_CUDA, _ROCM}:
        return {}
    if not torch.cuda.is_available():
        raise _refused(source, f"it lies on GPU {index}, which this PyTorch cannot use.")
    stream = torch.cuda.current_stream(index).cuda_stream
    return {"stream": 1 if kind == _CUDA and stream == 0 else stream}


def _check(facts: CapsuleFacts, kind: str, *, copy: bool) -> None:
    apart = zip(facts.shape, facts.strides or (), strict=False)
    for found, what, remedy in (
        (
            facts.filled and any(size > 1 and stride < 0 for size, stride in apart),
            f"has negative strides {facts.strides}, which torch lacks",
            f"Copy the {kind} in row-major order before handing it over (numpy.ascontiguousarray).",
        ),
        (
            facts.read_only and not copy,
            "is read-only, and a tensor can always be written",
            "Pass copy=True, or make it writable first.",
        ),
        (
            facts.misaligned and not copy,
            f"starts at an address that elements of {facts.itemsize} bytes cannot have",
            "Pass copy=True.",
        ),
    ):
        if found:
            raise SharingError(f"The memory of this {kind} {what}.", remedy=remedy)
