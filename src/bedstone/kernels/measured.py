"""Which implementation is the fastest here, measured once for a device and a shape class, kept on disk.

`kernels.tune` measures; the policy `auto` reads. Without a kept measurement the order in which an operation lists its implementations
decides. The file is `kernels.json` in bedstone's cache folder (`~/.cache/bedstone`, or what `BEDSTONE_CACHE` names); deleting it forgets
everything. An entry counts only for the same device, torch, number of threads and instruction set.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.device.cpu import cpu_name
from bedstone.core.errors import StorageError
from bedstone.kernels.policies import tell_changed
from bedstone.repro import cache_folder, write_json_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bedstone.kernels.implementation import KernelSpec


def measurements_path() -> Path:
    """Return the file that measurements are kept in."""
    return cache_folder() / "kernels.json"


def remember(op: str, spec: KernelSpec, seconds: Mapping[str, float]) -> None:
    """Keep what was measured for the class of a specification; choices are made anew.

    Args:
        op: The operation.
        spec: What it was called with.
        seconds: The median of each implementation.

    Raises:
        StorageError: The file cannot be read or written.
    """
    kept = dict(_kept())
    machine = dict(kept.get(_machine(spec.device), {}))
    machine[_key(op, spec)] = dict(seconds)
    path = measurements_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, {**kept, _machine(spec.device): machine})
    forget_measurements()


def measured(op: str, spec: KernelSpec) -> dict[str, float]:
    """Return the median seconds of each implementation, as they were kept for the class of a specification; empty if nobody measured.

    Args:
        op: The operation.
        spec: Any of the class.
    """
    kept = _kept()
    return kept[_machine(spec.device)].get(_key(op, spec), {}) if kept and _machine(spec.device) in kept else {}


def forget_measurements() -> None:
    """Read the file anew, and choose anew."""
    _read.cache_clear()
    tell_changed()


def _kept() -> dict[str, Any]:
    return _read(measurements_path())


@functools.lru_cache(maxsize=4)
def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError.from_os_error(error, path=path, doing="read the measurements of kernels") from error
    except ValueError as error:
        message = f"{path} is no file of kernel measurements: {error}."
        raise StorageError(message, path=path, remedy="Delete it; `bedstone kernels tune` makes it anew.") from error


def _key(op: str, spec: KernelSpec) -> str:
    return f"{op}: {spec.shape_class()}"


def _machine(device: str) -> str:
    usable = device == "cuda" and torch.cuda.is_available()
    name = torch.cuda.get_device_name() if usable else f"{cpu_name()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{device}, {name}, torch {torch.__version__}, {torch.get_num_threads()} threads"
