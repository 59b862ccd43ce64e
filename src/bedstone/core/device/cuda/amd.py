"""AMD GPUs as the kernel lists them (KFD, the compute part of `amdgpu`), without starting HIP.

Unverified: never run on a real AMD GPU yet.

References:
    Linux, `drivers/gpu/drm/amd/amdkfd/kfd_topology.c`: the files of `/sys/class/kfd/kfd/topology/nodes`
"""

from __future__ import annotations

from pathlib import Path

from bedstone.core.device.cuda.facts import DriverFacts, GpuFacts
from bedstone.core.device.cuda.nvidia import denied, device_nodes
from bedstone.core.device.pci import read_line


def probe_amd(dev: Path = Path("/dev"), sys: Path = Path("/sys")) -> tuple[DriverFacts, tuple[GpuFacts, ...]]:
    """Return the kernel driver and the GPUs that it lists.

    Args:
        dev: The folder of device files.
        sys: The folder of the kernel's objects.
    """
    topology = sys / "class" / "kfd" / "kfd" / "topology" / "nodes"
    nodes = device_nodes(dev, "kfd")
    loaded = (sys / "module" / "amdgpu").is_dir()
    driver = DriverFacts(
        library=loaded,
        library_error=None if loaded else "the kernel module amdgpu is not loaded",
        version=read_line(sys / "module" / "amdgpu" / "version"),
        nodes=nodes,
        nodes_denied=denied(nodes),
        listed_by="kfd" if topology.is_dir() else "",
    )
    return driver, _gpus(topology, sys / "bus" / "pci" / "devices")


def _gpus(topology: Path, pci: Path) -> tuple[GpuFacts, ...]:
    if not topology.is_dir():
        return ()
    folders = sorted((path for path in topology.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    properties = [(folder, _properties(folder / "properties")) for folder in folders]
    gpus = [(folder, found) for folder, found in properties if found.get("simd_count", 0) > 0]  # the others are CPUs
    return tuple(_gpu(index, folder, found, pci) for index, (folder, found) in enumerate(gpus))


def _properties(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:  # not ours to read: the kernel hides GPUs of other users' containers so
        return {}
    words = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2}  # noqa: PLR2004 - name and value


def _gpu(index: int, folder: Path, found: dict[str, int], pci: Path) -> GpuFacts:
    address = _pci_address(found)
    total, used = (read_line(pci / address / f"mem_info_vram_{what}") for what in ("total", "used"))
    unique = found.get("unique_id", 0)
    return GpuFacts(
        index=index,
        name=read_line(pci / address / "product_name") or read_line(folder / "name") or "",
        uuid=f"GPU-{unique:016x}" if unique else None,
        pci_id=address,
        total_bytes=int(total) if total else None,
        free_bytes=int(total) - int(used) if total and used else None,
        capability=_architecture(found.get("gfx_target_version", 0)),
    )


def _pci_address(found: dict[str, int]) -> str:
    place = found.get("location_id", 0)
    return f"{found.get('domain', 0):04x}:{place >> 8 & 0xFF:02x}:{place >> 3 & 0x1F:02x}.{place & 7}"


def _architecture(version: int) -> str | None:
    # 90402 is gfx942: major, two digits of minor, two digits of stepping, the latter in hexadecimal
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}" if version else None
