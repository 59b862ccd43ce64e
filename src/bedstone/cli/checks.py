"""The checks of `bedstone doctor` on versions, devices, plug-ins and room; each takes facts and returns findings."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bedstone._version import __version__
from bedstone.cli.findings import Finding
from bedstone.cli.machine import free_memory_bytes, usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bedstone.cli.findings import Status
    from bedstone.cli.machine import Cores
    from bedstone.core.device import DeviceReport
    from bedstone.core.device.report import DeviceRow
    from bedstone.core.registry import PluginStatus

LOW_BYTES = 2 * 10**9
"""Less memory or disk than this is worth a look: a small model with its optimizer takes about as much."""

_BROKEN = {"BACKEND_PLUGIN_FAILED", "DRIVER_MISMATCH", "ECC_OR_XID"}
# Reasons that no wish of the user explains: the machine needs mending before anything can run there.


def check_versions() -> list[Finding]:
    """Return the versions of what bedstone stands on; torch's is read from its metadata."""
    facts = {
        "bedstone": __version__,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "platform": platform.platform(),
    }
    return [Finding(topic="versions", subject=name, status="ok", text=text) for name, text in facts.items()]


def check_cpu_library() -> list[Finding]:
    """Return whether packed weights are computed by the compiled CPU library here, and with which instruction set."""
    from bedstone.kernels.native import status

    found = status()
    if found.isa:
        text = f"works, with {found.isa}"
        return [Finding(topic="kernels", subject="compiled CPU library", status="ok", text=text)]
    text = f"{found.reason} Packed weights are computed in plain torch, several times slower."
    return [Finding(topic="kernels", subject="compiled CPU library", status="look", text=text, remedy=found.remedy)]


def check_devices(report: DeviceReport) -> list[Finding]:
    """Return what the device request comes to and a finding for each candidate.

    Args:
        report: What `device_report()` returned.
    """
    return [_selection(report), *(_candidate(row) for row in report)]


def _selection(report: DeviceReport) -> Finding:
    asked = f"{report.requested}, from {report.source}"
    if report.selected is None:
        return _device(f"choice ({asked})", "bad", f"none: {report.reason}")
    fell_back = report.requested == "auto" and report.selected.type == "cpu"
    return _device(f"choice ({asked})", "look" if fell_back else "ok", f"{report.selected}: {report.reason}")


def _candidate(row: DeviceRow) -> Finding:
    status: Status = "ok"
    if row.verdict != "usable":
        # Absent hardware is no fault. Hardware that is there and lies idle is worth a look.
        status = "bad" if row.code in _BROKEN else "look" if row.verdict == "unusable" else "ok"
    about = ", ".join(filter(None, [row.name, _memory(row), row.driver and f"driver {row.driver}", row.runtime]))
    text = " ".join(filter(None, [row.verdict, f"({about})" if about else "", f"[{row.code}]", row.reason, *row.notes]))
    return _device(row.device or row.backend, status, text, row.remedy)


def _memory(row: DeviceRow) -> str:
    from bedstone.core.memory import format_bytes

    if row.total_bytes is None:
        return ""
    free = f"{format_bytes(row.free_bytes)} free of " if row.free_bytes is not None else ""
    return f"{free}{format_bytes(row.total_bytes)}"


def _device(subject: str, status: Status, text: str, remedy: str = "") -> Finding:
    return Finding(topic="devices", subject=subject, status=status, text=text, remedy=remedy)


def check_plugins(plugins: Iterable[PluginStatus], groups: Iterable[str]) -> list[Finding]:
    """Return a finding for each installed plug-in; a broken one has its traceback in `details`.

    Args:
        plugins: What `plugin_report()` returned.
        groups: The entry-point groups that were looked in.
    """
    findings = [_plugin(plugin) for plugin in plugins]
    where = f"none installed (looked for {', '.join(groups)})"
    return findings or [Finding(topic="plug-ins", subject="plug-ins", status="ok", text=where)]


def _plugin(plugin: PluginStatus) -> Finding:
    subject = f"{plugin.group}: {plugin.name}"
    if plugin.ok:
        return Finding(topic="plug-ins", subject=subject, status="ok", text=f"{plugin.target} of {plugin.distribution}")
    why = plugin.traceback.strip().splitlines()[-1]
    return Finding(
        topic="plug-ins",
        subject=subject,
        status="bad",
        text=f"{plugin.target} of {plugin.distribution} does not load: {why}",
        remedy="Update that package or uninstall it; everything else works without it.",
        details=plugin.traceback,
    )


@dataclass(frozen=True, slots=True)
class Room:
    """What is free on this machine.

    Attributes:
        cores: What can compute at once.
        torch_threads: Threads that torch will use.
        load: Processes that wanted a core in the last minute, on average; `None` where the system does not say.
        memory_bytes: Memory that can still be allocated; `None` where the system does not say.
        disk_bytes: Free bytes by folder.
    """

    cores: Cores
    torch_threads: int
    load: float | None
    memory_bytes: int | None
    disk_bytes: dict[str, int]

    @classmethod
    def measure(cls) -> Room:
        """Read it from this machine."""
        import torch

        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        disk = {str(Path.cwd()): shutil.disk_usage(Path.cwd()).free}
        return cls(usable_cores(), torch.get_num_threads(), load, free_memory_bytes(), disk)


def check_room(room: Room) -> list[Finding]:
    """Return findings on threads, load, memory and disk.

    Args:
        room: What was measured.
    """
    findings = [_threads(room)]
    if room.load is not None:
        busy = room.load > room.cores.count
        text = f"{room.load:.2f} in the last minute" + (", more than the cores can serve" if busy else "")
        findings.append(Finding(topic="room", subject="load", status="look" if busy else "ok", text=text))
    if room.memory_bytes is not None:
        findings.append(_free("memory", room.memory_bytes))
    return findings + [_free(f"disk at {folder}", free) for folder, free in room.disk_bytes.items()]


def _threads(room: Room) -> Finding:
    text = f"torch uses {room.torch_threads} ({room.cores.reason})"
    if room.torch_threads <= room.cores.count:
        return Finding(topic="room", subject="threads", status="ok", text=text)
    remedy = f"Set OMP_NUM_THREADS={room.cores.count}; `bedstone train` does so by itself."
    return Finding(topic="room", subject="threads", status="look", text=f"{text}: too many", remedy=remedy)


def _free(subject: str, free: int) -> Finding:
    from bedstone.core.memory import format_bytes

    low = free < LOW_BYTES
    text = f"{format_bytes(free)} free" + (", little for a model and its checkpoints" if low else "")
    return Finding(topic="room", subject=subject, status="look" if low else "ok", text=text)
