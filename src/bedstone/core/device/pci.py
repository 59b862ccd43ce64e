"""GPUs on the PCI bus, read from Linux's `/sys`: tells "no GPU at all" from "a GPU that PyTorch cannot use".

The list needs no driver, no library and no permission, so it also holds what nothing else can see.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
"""PCI vendor numbers of those who make GPUs that PyTorch runs on."""

_GPU_CLASSES = ("0x03", "0x12")  # display controllers, and "processing accelerators" such as AMD's Instinct cards


@dataclass(frozen=True, slots=True, kw_only=True)
class PciDevice:
    """A GPU on the PCI bus.

    Attributes:
        address: Domain, bus, device and function, for example `0000:3b:00.0`.
        vendor: `nvidia`, `amd` or `intel`.
        device: The vendor's number of the model, four hexadecimal digits.
    """

    address: str
    vendor: str
    device: str


def scan_pci(root: Path = Path("/sys/bus/pci/devices")) -> tuple[PciDevice, ...] | None:
    """Return the GPUs of the known vendors in order of address, or `None` where there is no list to read.

    Args:
        root: Linux's folder with a folder a device.

    >>> scan_pci(Path("/no/such/folder")) is None
    True
    """
    if not root.is_dir():
        return None
    found = (_read_device(folder) for folder in sorted(root.iterdir()))
    return tuple(device for device in found if device is not None)


def of_vendor(devices: tuple[PciDevice, ...] | None, *vendors: str) -> tuple[PciDevice, ...] | None:
    """Return those of the given vendors; `None` stays `None`, since unknown is not the same as none."""
    return None if devices is None else tuple(device for device in devices if device.vendor in vendors)


def _read_device(folder: Path) -> PciDevice | None:
    vendor = VENDORS.get(read_line(folder / "vendor") or "")
    if vendor is None or not (read_line(folder / "class") or "").startswith(_GPU_CLASSES):
        return None
    number = (read_line(folder / "device") or "").removeprefix("0x")
    return PciDevice(address=folder.name, vendor=vendor, device=number)


def read_line(path: Path) -> str | None:
    """Return the first line of a small text file, stripped; `None` when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0].strip()
    except OSError:
        return None
