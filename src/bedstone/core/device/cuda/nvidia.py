"""The NVIDIA driver as seen from the file system and its library, without starting it.

`cuDriverGetVersion` is the one function of `libcuda` that needs no `cuInit`, and it counts a forward-compatibility
package in. Unverified: never run on a real NVIDIA driver yet.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import replace
from pathlib import Path

from bedstone.core.device.cuda.facts import DriverFacts, GpuFacts
from bedstone.core.device.cuda.nvml import ask_nvml
from bedstone.core.device.pci import read_line


def probe_nvidia(dev: Path = Path("/dev"), proc: Path = Path("/proc")) -> tuple[DriverFacts, tuple[GpuFacts, ...]]:
    """Return the driver and what it lists: by NVML, else by `/proc/driver/nvidia`.

    Args:
        dev: The folder of device files.
        proc: The folder of the kernel's files.
    """
    driver = _driver(dev, proc / "driver" / "nvidia")
    answer = ask_nvml()
    if answer.gpus is not None:
        return replace(driver, version=answer.driver_version or driver.version, listed_by="nvml"), answer.gpus
    gpus = _gpus_of_proc(proc / "driver" / "nvidia" / "gpus")
    return replace(driver, listed_by="proc" if gpus else "", listing_error=answer.error), gpus


def _driver(dev: Path, proc: Path) -> DriverFacts:
    cuda, error = _cuda_version()
    nodes = device_nodes(dev, "nvidia[0-9]*", "nvidiactl", "dxg", "nvhost-gpu")
    return DriverFacts(
        library=error is None,
        library_error=error,
        version=_kernel_version(proc / "version"),
        cuda=cuda,
        nodes=nodes,
        nodes_denied=denied(nodes),
    )


def device_nodes(dev: Path, *patterns: str) -> tuple[str, ...] | None:
    """Return the device files that match, or `None` on a system that has no such files."""
    if sys.platform == "win32" or not dev.is_dir():
        return None
    return tuple(str(path) for pattern in patterns for path in sorted(dev.glob(pattern)))


def denied(nodes: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return those that this user may not read and write."""
    return tuple(node for node in nodes or () if not os.access(node, os.R_OK | os.W_OK))


def _cuda_version(library: str | None = None) -> tuple[str | None, str | None]:
    name = library or ("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    try:
        loaded = ctypes.CDLL(name)
    except OSError as error:
        return None, str(error)
    version = ctypes.c_int()
    if loaded.cuDriverGetVersion(ctypes.byref(version)) != 0 or not version.value:
        return None, None
    return f"{version.value // 1000}.{version.value % 1000 // 10}", None


def _kernel_version(path: Path) -> str | None:
    # NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024
    words = (read_line(path) or "").split()
    return next((word for word in words if word[0].isdigit() and word.count(".") >= 1), None)


def _gpus_of_proc(folder: Path) -> tuple[GpuFacts, ...]:
    if not folder.is_dir():
        return ()
    return tuple(_gpu_of_proc(index, path) for index, path in enumerate(sorted(folder.iterdir())))


def _gpu_of_proc(index: int, folder: Path) -> GpuFacts:
    try:
        lines = (folder / "information").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    uuid = said.get("GPU UUID", "")
    known = uuid.startswith("GPU-") and "?" not in uuid  # the driver writes question marks before the first use
    return GpuFacts(index=index, name=said.get("Model", ""), uuid=uuid if known else None, pci_id=folder.name)
