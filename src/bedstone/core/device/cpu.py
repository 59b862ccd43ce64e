"""The CPU's row: its name and memory. It is always usable and always last, so it is no backend."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from bedstone.core.device.pci import read_line
from bedstone.core.device.report import DeviceRow


def cpu_row() -> DeviceRow:
    """Return the row of this machine's CPU; the memory limit of a container counts as its memory.

    >>> cpu_row().device
    'cpu'
    """
    total, free = _memory()
    return DeviceRow(
        backend="cpu",
        verdict="usable",
        reason=f"The CPU is always there; PyTorch uses {torch.get_num_threads()} thread(s).",
        device="cpu",
        name=cpu_name(),
        total_bytes=total,
        free_bytes=free,
        capability=torch.backends.cpu.get_cpu_capability(),
        runtime=f"PyTorch {torch.__version__}",
    )


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name from Linux's own table, else what Python knows.

    >>> bool(cpu_name())
    True
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _memory(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> tuple[int | None, int | None]:
    total, free = _meminfo_bytes(meminfo)
    limit = read_line(cgroup / "memory.max") or "max"
    if limit == "max":
        return total, free
    left = int(limit) - int(read_line(cgroup / "memory.current") or 0)
    return min(int(limit), total or int(limit)), min(max(left, 0), left if free is None else free)


def _meminfo_bytes(meminfo: Path) -> tuple[int | None, int | None]:
    try:
        lines = meminfo.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux: the total is still known on POSIX
        pages = {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(getattr(os, "sysconf_names", ()))
        return (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if pages else None), None
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}
    return sizes.get("MemTotal"), sizes.get("MemAvailable")
