"""Where two results differ first: by tensor, place and value, bit for bit.

"The hashes differ" ends a search; this begins one. Values are compared as bits, so equal NaNs are equal and 0.0 differs
from -0.0, which is what "the same run again" means.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from bedstone.core.errors import StorageError
from bedstone.repro.checkpoint_folder import STATE

if TYPE_CHECKING:
    import os


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference of two files or folders.

    Attributes:
        name: The tensor, as `file/name` in a folder; or the place of another value, as `state.json/optimizer.lr`.
        what: `presence`, `dtype`, `shape` or `value`.
        left: What the first has: dtype, shape, or the value at `index`; `None` where it has nothing.
        right: The same of the second.
        index: The first place whose bits differ, in row-major order; `None` when whole things differ.
        differing: How many values of the tensor differ.
        max_abs: The largest distance within the tensor; NaN where a NaN meets a number; `None` if not a number.
    """

    name: str
    what: str
    left: Any
    right: Any
    index: tuple[int, ...] | None = None
    differing: int | None = None
    max_abs: float | None = None

    def __str__(self) -> str:
        if self.what == "presence":
            return f"{self.name} is only in the {'second' if self.left is None else 'first'}."
        place = f"{self.name}{list(self.index)}" if self.index else self.name
        text = f"{place} differs in {self.what}: {self.left} against {self.right}"
        if self.differing is None:
            return f"{text}."
        distance = "" if self.max_abs is None else f", by at most {self.max_abs}"
        return f"{text}; values that differ in it: {self.differing:,}{distance}."


def first_difference(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> Difference | None:
    """Compare two safetensors files, or two folders of them, tensor by tensor in the order of their names.

    Of two folders, the `state.json` that a checkpoint keeps beside its tensors is compared too, after the tensors.

    Args:
        first: A `.safetensors` file, a checkpoint, or another folder with such files (an adapter).
        second: The same kind of thing.

    Returns:
        The first difference, or `None` when every bit is the same.

    Raises:
        StorageError: One of them is missing, is not a safetensors file, or holds none; one is a file and the other a folder.

    >>> import tempfile
    >>> from bedstone.repro.checkpoint import CheckpointStore
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = CheckpointStore(folder)
    ...     a = store.save(1, {"model": {"bias": torch.tensor([1.0, 2.0, 3.0])}})
    ...     b = store.save(2, {"model": {"bias": torch.tensor([1.0, 2.5, 3.0])}})
    ...     print(first_difference(a, b))
    model.safetensors/bias[1] differs in value: 2.0 against 2.5; values that differ in it: 1, by at most 0.5.
    """
    left, right = Path(first), Path(second)
    if not (left.is_dir() and right.is_dir()):  # two files; of anything else the reader says what is wrong
        return _compare_files(left, right, prefix="")
    left_files, right_files = _tensor_files(left), _tensor_files(right)
    for name in sorted(left_files | right_files):
        if name not in left_files or name not in right_files:
            return _present(name, left=name in left_files)
        if found := _compare_files(left / name, right / name, prefix=f"{name}/"):
            return found
    return _compare_values(_state(left), _state(right), STATE, "/")


def _tensor_files(folder: Path) -> set[str]:
    names = {path.name for path in folder.glob("*.safetensors")}
    if not names and not (folder / STATE).exists():
        raise StorageError(f"The folder {folder} holds no .safetensors file.", path=folder)
    return names


def _compare_files(left: Path, right: Path, prefix: str) -> Difference | None:
    for path in (left, right):
        try:
            path.stat()  # the library's own error has the path in its text and no reason of its own
        except OSError as error:
            raise StorageError.from_os_error(error, path=path, doing="read the tensors") from error
    try:
        with safe_open(left, framework="pt") as a, safe_open(right, framework="pt") as b:
            return _compare_tables(a, b, prefix)
    except SafetensorError as error:
        raise StorageError(f"{left} or {right} is not a safetensors file: {error}.", path=left) from error


def _compare_tables(left: Any, right: Any, prefix: str) -> Difference | None:
    left_names, right_names = set(left.keys()), set(right.keys())
    for name in sorted(left_names | right_names):
        if name not in left_names or name not in right_names:
            return _present(prefix + name, left=name in left_names)
        if found := _compare_tensors(prefix + name, left.get_tensor(name), right.get_tensor(name)):
            return found
    return None


def _compare_tensors(name: str, left: torch.Tensor, right: torch.Tensor) -> Difference | None:
    if left.dtype != right.dtype:
        return Difference(name, "dtype", left.dtype, right.dtype)
    if left.shape != right.shape:
        return Difference(name, "shape", tuple(left.shape), tuple(right.shape))
    left_bits, right_bits = _bits(left), _bits(right)
    different = (left_bits != right_bits).any(dim=1)
    if not different.any():
        return None
    flat = int(different.nonzero()[0])
    index = tuple(int(place) for place in torch.unravel_index(torch.tensor(flat), left.shape))
    # Picked as bytes, since not every dtype can be indexed.
    a, b = (bits[different].view(left.dtype).reshape(-1) for bits in (left_bits, right_bits))
    return Difference(name, "value", _first_value(a), _first_value(b), index, len(a), _max_distance(a, b))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1, 1).view(torch.uint8)


def _first_value(values: torch.Tensor) -> Any:
    if values.dtype == torch.float4_e2m1fn_x2:  # two numbers in a byte, and no arithmetic
        return f"0x{int(values.view(torch.uint8)[0]):02x}"
    return values[0].item()


def _max_distance(left: torch.Tensor, right: torch.Tensor) -> float | None:
    if left.dtype == torch.float4_e2m1fn_x2:
        return None
    wide = torch.complex128 if left.is_complex() else torch.float64
    return float((left.to(wide) - right.to(wide)).abs().max())


def _state(folder: Path) -> Any:
    try:
        return json.loads((folder / STATE).read_bytes())
    except FileNotFoundError:
        return None  # a folder with tensors alone
    except OSError as error:
        raise StorageError.from_os_error(error, path=folder / STATE, doing="read the state") from error
    except ValueError as error:
        raise StorageError(f"{folder / STATE} is not JSON: {error}.", path=folder / STATE) from error


def _compare_values(left: Any, right: Any, path: str, joint: str = ".") -> Difference | None:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in [*left, *(key for key in right if key not in left)]:
            if key not in left or key not in right:
                return _present(f"{path}{joint}{key}", left=key in left)
            if found := _compare_values(left[key], right[key], f"{path}{joint}{key}"):
                return found
        return None
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return next((d for i, (a, b) in pairs if (d := _compare_values(a, b, f"{path}[{i}]"))), None)
    if type(left) is type(right) and left == right and not _other_zero(left, right):
        return None
    return Difference(path, "value", left, right)


def _other_zero(left: Any, right: Any) -> bool:
    return isinstance(left, float) and math.copysign(1.0, left) != math.copysign(1.0, right)


def _present(name: str, *, left: bool) -> Difference:
    return Difference(name, "presence", "present" if left else None, None if left else "present")
