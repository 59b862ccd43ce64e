"""Tensors to and from a safetensors file: its length, hash and errors known while it is written.

The format is eight bytes of header length, a JSON header, and the tensors' bytes. The library's own writer needs NumPy,
turns a full disk into an error without a code, and leaves the hash to a second reading; so writing is done here, and
reading is left to the library, which checks every header it opens. Both directions agree with it, byte by byte.
"""

from __future__ import annotations

import ctypes
import json
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import UnsupportedError
from bedstone.core.memory import has_memory
from bedstone.repro.files import FileRecord, write_new_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CODES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float4_e2m1fn_x2: "F4",
}


def check_tensors(tensors: dict[str, torch.Tensor], *, file: str) -> None:
    """Refuse tensors that a safetensors file cannot hold, before anything is written.

    Args:
        tensors: By name.
        file: What the message calls their file.

    Raises:
        UnsupportedError: A tensor is sparse or quantized, has no memory of its own (see `has_memory`), or is of a dtype that the format
            lacks; the tensor is named.

    >>> check_tensors({"w": torch.ones(2, dtype=torch.complex128)}, file="model")
    Traceback (most recent call last):
    bedstone.core.errors.UnsupportedError: The tensor 'w' of 'model' is of dtype torch.complex128, which the safetensors format lacks.
    """
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided:
            fault = f"has the layout {tensor.layout}; the safetensors format is dense"
        elif not has_memory(tensor):
            kind = f"is a {type(tensor).__name__} without memory of its own"
            fault = f"{'lies on the device `meta`' if tensor.is_meta else kind}, so it has no data to write"
        elif tensor.dtype not in _CODES or (tensor.dtype == torch.float4_e2m1fn_x2 and tensor.dim() == 0):
            fault = f"is of dtype {tensor.dtype}, which the safetensors format lacks"
        else:
            continue
        raise UnsupportedError(f"The tensor {name!r} of {file!r} {fault}.", feature="tensor file")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> FileRecord:
    """Write tensors to a new safetensors file, one at a time copied to the CPU; force it to the disk.

    Args:
        path: The file; must not exist.
        tensors: By name, any shape, strides and device; what `check_tensors` lets pass. Tensors that share storage are
            each written in full.
        metadata: Texts by name for the header of the file.

    Returns:
        Length and hash of the file.

    Raises:
        OSError: As the operating system says.
    """
    # The order of the format's own writer: widest element first, so that every tensor starts aligned.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    return write_new_file(path, _pieces(ordered, metadata))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file into memory of its own on the CPU, by name in the file's order.

    Raises:
        OSError: The file cannot be read.
        safetensors.SafetensorError: It is not a safetensors file.
    """
    from safetensors import safe_open

    # Cloned, since what safe_open returns is a view of the file, which may be pruned or replaced later.
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping


def tensor_content(tensor: torch.Tensor) -> Iterator[memoryview]:
    r"""Yield the bytes of a tensor as its file holds them; nothing for an empty one.

    Args:
        tensor: What `check_tensors` lets pass.

    >>> [bytes(piece) for piece in tensor_content(torch.tensor([1, 2], dtype=torch.uint8))]
    [b'\x01\x02']
    """
    # Conjugation and negation may be pending in a flag; the copy keeps the memory alive until it is written.
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    size = plain.numel() * plain.dtype.itemsize
    if size:
        yield memoryview((ctypes.c_char * size).from_address(plain.data_ptr())).cast("B")


def _pieces(ordered: list[tuple[str, torch.Tensor]], metadata: dict[str, str] | None) -> Iterator[bytes | memoryview]:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, tensor in ordered:
        shape = list(tensor.shape)
        if tensor.dtype == torch.float4_e2m1fn_x2:
            shape[-1] *= 2  # two numbers a byte; the format counts numbers
        end = offset + tensor.numel() * tensor.dtype.itemsize
        header[name] = {"dtype": _CODES[tensor.dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        yield from tensor_content(tensor)
