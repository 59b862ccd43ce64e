"""What memory can be shared as it is, and which integers stand in for dtypes that others lack.

Memory carries no meaning of its own: a conjugated tensor shares the memory of its original, and one that requires
gradients relies on nobody writing past autograd. Sharing those would change what the numbers mean, so it is refused, with
the call that makes it right. (`torch.from_dlpack` refuses only some: it drops the negative bit in silence.)

NumPy has no bfloat16, float8 or complex32. Their bits travel as unsigned integers of the same width, and become
what they were where the receiver says the dtype.
"""

from __future__ import annotations

import sys
from typing import ClassVar, NamedTuple

import torch

from bedstone.core.dtype import bytes_per_element, dtype_name, is_quantized
from bedstone.core.errors import CoreError, InvalidConfigError, UnsupportedError
from bedstone.core.memory import has_memory

_NATIVE = "<" if sys.byteorder == "little" else ">"
_CARRIERS = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32}

# NumPy's type strings; a dtype that is missing here has none.
TYPE_STRINGS = {
    torch.bool: "|b1",
    torch.uint8: "|u1",
    torch.int8: "|i1",
    **{getattr(torch, f"uint{8 * size}"): f"{_NATIVE}u{size}" for size in (2, 4, 8)},
    **{getattr(torch, f"int{8 * size}"): f"{_NATIVE}i{size}" for size in (2, 4, 8)},
    **{getattr(torch, f"float{8 * size}"): f"{_NATIVE}f{size}" for size in (2, 4, 8)},
    torch.complex64: f"{_NATIVE}c8",
    torch.complex128: f"{_NATIVE}c16",
}


class SharingError(CoreError, BufferError):
    """Memory that cannot be shared without a copy, or without changing what its numbers mean."""

    code: ClassVar[str] = "sharing"


class Obstacle(NamedTuple):
    """Why a framework cannot have a tensor, not even as a copy.

    Attributes:
        kind: `device`, `dtype`, `shape`, `setting` or `missing`.
        message: Why, in a sentence.
        remedy: What to do about it, in another.
    """

    kind: str
    message: str
    remedy: str


def carrier_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the unsigned integer of the same width that carries the bits of a dtype which NumPy lacks.

    Args:
        dtype: Any dtype that can be shared.

    Returns:
        `uint8`, `uint16` or `uint32`; a dtype that NumPy has carries itself.

    >>> carrier_dtype(torch.bfloat16), carrier_dtype(torch.float8_e5m2), carrier_dtype(torch.float32)
    (torch.uint16, torch.uint8, torch.float32)
    """
    return dtype if dtype in TYPE_STRINGS else _CARRIERS[bytes_per_element(dtype)]


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse torch's quantized dtypes, whose scale lies outside the memory.

    Raises:
        UnsupportedError: The dtype is quantized.
    """
    if is_quantized(dtype):
        raise UnsupportedError(
            f"A tensor of {dtype_name(dtype)} cannot be handed over: its scale is not part of its memory.",
            feature=f"sharing {dtype}",
            remedy="Hand over tensor.int_repr(), and the scale beside it.",
        )


def check_memory(tensor: torch.Tensor) -> None:
    """Refuse what is not one tensor in one memory.

    Args:
        tensor: Any tensor.

    Raises:
        UnsupportedError: Sparse, quantized, or without memory of its own (meta, fake, a wrapper of other tensors).
        InvalidConfigError: Not a tensor.
    """
    if not isinstance(tensor, torch.Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
        kind = type(tensor).__name__
        raise InvalidConfigError(f"`tensor` must be a torch.Tensor, not a {kind}.", argument="tensor", value=kind)
    if tensor.layout is not torch.strided:
        raise UnsupportedError(
            f"A tensor of layout {tensor.layout} has no single memory to share.",
            feature=f"sharing {tensor.layout}",
            remedy="Call tensor.to_dense() first.",
        )
    check_dtype(tensor.dtype)
    if not has_memory(tensor):
        raise UnsupportedError(
            f"This {type(tensor).__name__} on {tensor.device} has no memory of its own to share.",
            feature="sharing a tensor without memory",
            remedy="Share a real tensor, or the tensors that this one wraps.",
        )


def check_shareable(tensor: torch.Tensor) -> None:
    """Refuse a tensor whose memory alone does not say what its numbers are.

    Args:
        tensor: Any tensor.

    Raises:
        SharingError: It requires gradients, or its conjugate or negative bit is set; nothing is detached or resolved
            in silence.
        UnsupportedError: As `check_memory`.
        InvalidConfigError: Not a tensor.
    """
    check_detached(tensor)
    if bit := lazy_bit(tensor):
        remedy = "Call tensor.resolve_conj() first." if bit == "conjugate" else "Call tensor.resolve_neg() first."
        raise SharingError(f"`tensor` has its {bit} bit set, which its memory does not show.", remedy=remedy)


def check_detached(tensor: torch.Tensor) -> None:
    """Refuse a tensor that requires gradients, which follow neither its memory nor a copy in another framework.

    Args:
        tensor: Any tensor.

    Raises:
        SharingError: It requires gradients.
        UnsupportedError: As `check_memory`.
        InvalidConfigError: Not a tensor.
    """
    check_memory(tensor)
    if tensor.requires_grad:
        raise SharingError(
            "`tensor` requires gradients, which cannot follow its memory.", remedy="Call tensor.detach() first."
        )


def lazy_bit(tensor: torch.Tensor) -> str:
    """Return which bit says that the numbers differ from the memory: `conjugate`, `negative` or neither.

    >>> lazy_bit(torch.ones(2, dtype=torch.complex64).conj()), lazy_bit(torch.ones(2))
    ('conjugate', '')
    """
    return "conjugate" if tensor.is_conj() else "negative" if tensor.is_neg() else ""


def bits_dtype(dtype: torch.dtype) -> torch.dtype | None:
    """Return the unsigned integer of the same width, or `None` above four bytes.

    >>> bits_dtype(torch.float16), bits_dtype(torch.complex64)
    (torch.uint16, None)
    """
    return _CARRIERS.get(bytes_per_element(dtype))


def copied(tensor: torch.Tensor, *, contiguous: bool = False) -> torch.Tensor:
    """Return a private copy, with the same strides where they leave no gaps, or row-major.

    The bits are copied as integers, since torch copies no elements below a byte.

    >>> copied(torch.ones(2, 3).t()).stride(), copied(torch.ones(2, 3).t(), contiguous=True).stride()
    ((1, 3), (2, 1))
    """
    layout = torch.contiguous_format if contiguous else torch.preserve_format
    return tensor.view(carrier_dtype(tensor.dtype)).clone(memory_format=layout).view(tensor.dtype)
