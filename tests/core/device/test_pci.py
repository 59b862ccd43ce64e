"""The PCI bus: GPUs of known vendors only, and unknown is not the same as none. On a folder built like Linux's own."""

from __future__ import annotations

from bedstone.core.device.pci import PciDevice, of_vendor, scan_pci


def plug_in(root, address, vendor, device, device_class):
    folder = root / address
    folder.mkdir()
    for name, value in (("vendor", vendor), ("device", device), ("class", device_class)):
        (folder / name).write_text(value + "\n")


def test_lists_gpus_and_accelerators_and_nothing_else(tmp_path):
    """A host bridge of Intel and an audio function of NVIDIA are no GPUs; an Instinct card is no display."""
    plug_in(tmp_path, "0000:00:00.0", "0x8086", "0x0d57", "0x060000")
    plug_in(tmp_path, "0000:41:00.0", "0x1002", "0x74a1", "0x120000")
    plug_in(tmp_path, "0000:3b:00.0", "0x10de", "0x2330", "0x030200")
    plug_in(tmp_path, "0000:3b:00.1", "0x10de", "0x22bb", "0x040300")
    plug_in(tmp_path, "0000:00:02.0", "0x1af4", "0x1050", "0x030000")
    (tmp_path / "0000:99:00.0").mkdir()
    assert scan_pci(tmp_path) == (
        PciDevice(address="0000:3b:00.0", vendor="nvidia", device="2330"),
        PciDevice(address="0000:41:00.0", vendor="amd", device="74a1"),
    )


def test_unknown_stays_unknown(tmp_path):
    """A system without the folder is not a machine without a GPU."""
    assert scan_pci(tmp_path / "absent") is None
    assert of_vendor(None, "nvidia") is None
    assert scan_pci(tmp_path) == of_vendor((), "nvidia") == ()
