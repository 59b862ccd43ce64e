"""What this process may use of the machine: cores and memory, as Linux tells it; read from files, nothing imported.

A container often sees more cores than it may use: `sched_getaffinity` says which ones, the cgroup's `cpu.max` how much
of them, and two hyper-threads of one core do the arithmetic of one. Every function takes the root of the file system,
so that any machine can be laid out in a folder and tested.

References:
    Linux kernel, Control Group v2, `cpu.max` and `memory.max`. https://docs.kernel.org/admin-guide/cgroup-v2.html
    Linux kernel, `thread_siblings_list`. https://docs.kernel.org/admin-guide/cputopology.html
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Cores:
    """How many threads can really compute at once, and why that many.

    Attributes:
        count: At least 1.
        reason: For people, for example `2 physical cores`.
    """

    count: int
    reason: str


def usable_cores(root: Path = ROOT, *, allowed: frozenset[int] | None = None) -> Cores:
    """Return the physical cores that this process may use, no more than its cgroup's quota.

    Args:
        root: The root of the file system.
        allowed: Numbers of the logical CPUs that the process may run on; asked of the system when left out.

    >>> usable_cores().count >= 1
    True
    """
    allowed = _allowed_cpus() if allowed is None else allowed
    physical = len({_siblings(root, cpu) for cpu in allowed})
    quota = _cpu_quota(root)
    if quota is not None and quota < physical:
        return Cores(max(1, int(quota)), f"the cgroup allows {quota:g} of {physical} physical cores")
    threads = f", {len(allowed)} hyper-threads" if len(allowed) > physical else ""
    return Cores(physical, f"{physical} physical core{'s' if physical > 1 else ''}{threads}")


def free_memory_bytes(root: Path = ROOT) -> int | None:
    """Return the bytes that can still be allocated without swapping, or `None` where Linux does not say.

    Args:
        root: The root of the file system.
    """
    available = _meminfo_available(root)
    for folder in _cgroup_folders(root):
        limit, used = _read(folder / "memory.max"), _read(folder / "memory.current")
        if limit and limit.isdigit() and used:
            left = max(0, int(limit) - int(used))
            available = left if available is None else min(available, left)
    return available


def _allowed_cpus() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _siblings(root: Path, cpu: int) -> str:
    # Without topology (some virtual machines) each logical CPU counts as a core.
    listed = _read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return listed or str(cpu)


def _cpu_quota(root: Path) -> float | None:
    """Return the tightest quota on the way from this process's cgroup to the root, in CPUs."""
    quotas: list[float] = []
    for folder in _cgroup_folders(root):
        quota, _, period = (_read(folder / "cpu.max") or "max").partition(" ")
        if quota != "max":
            quotas.append(int(quota) / int(period or 100_000))
    return min(quotas, default=None)


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """Yield the version 2 cgroup of this process and those above it."""
    lines = (_read(root / "proc/self/cgroup") or "").splitlines()
    path = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    top = root / "sys/fs/cgroup"
    folder = top / path
    yield from [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]


def _meminfo_available(root: Path) -> int | None:
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:  # not this kernel, not this system
        return None
