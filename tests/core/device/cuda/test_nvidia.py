"""The NVIDIA driver as the file system shows it, on folders built like Linux's own."""

from __future__ import annotations

import os

import pytest

from bedstone.core.device.cuda.nvidia import denied, device_nodes, probe_nvidia

VERSION = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\n"
    "GCC version:  gcc version 12.3.0\n"
)
INFORMATION = (
    "Model: \t\t NVIDIA GeForce RTX 3090\nIRQ:   \t\t 171\nGPU UUID: \t {uuid}\nBus Type: \t PCIe\n"
    "Bus Location: \t 0000:{bus}:00.0\nDevice Minor: \t 0\n"
)


@pytest.fixture
def machine(tmp_path):
    """Two GPUs, one of which was not used yet, so that the driver does not know its UUID."""
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvme0", "null"):
        (tmp_path / "dev" / name).write_text("")
    proc = tmp_path / "proc" / "driver" / "nvidia"
    for bus, uuid in (("01", "GPU-8932f937"), ("2a", "GPU-????????-????")):
        (proc / "gpus" / f"0000:{bus}:00.0").mkdir(parents=True)
        (proc / "gpus" / f"0000:{bus}:00.0" / "information").write_text(INFORMATION.format(uuid=uuid, bus=bus))
    (proc / "version").write_text(VERSION)
    return tmp_path


def test_the_kernels_list_stands_in_for_nvml(machine):
    """Names and addresses, and `None` for what the list does not say."""
    driver, gpus = probe_nvidia(machine / "dev", machine / "proc")
    if driver.listed_by == "nvml":
        pytest.skip("this machine has NVML")
    assert (driver.listed_by, driver.version) == ("proc", "550.54.14")
    assert [(gpu.index, gpu.name, gpu.uuid, gpu.pci_id) for gpu in gpus] == [
        (0, "NVIDIA GeForce RTX 3090", "GPU-8932f937", "0000:01:00.0"),
        (1, "NVIDIA GeForce RTX 3090", None, "0000:2a:00.0"),
    ]
    assert {gpu.total_bytes for gpu in gpus} == {gpu.capability for gpu in gpus} == {None}


def test_finds_device_files_and_those_that_are_denied(machine):
    """A disk is no GPU; a system without `/dev` is unknown, not empty."""
    dev = machine / "dev"
    nodes = device_nodes(dev, "nvidia[0-9]*", "nvidiactl")
    assert nodes == tuple(str(dev / name) for name in ("nvidia0", "nvidia1", "nvidiactl"))
    assert device_nodes(machine / "absent", "*") is None
    gone = (str(dev / "nvidia9"),)
    assert denied(gone) == gone
    if os.geteuid() != 0:  # root may open everything
        (dev / "nvidia1").chmod(0)
        assert denied(nodes) == (str(dev / "nvidia1"),)


def test_an_empty_machine_has_nothing(tmp_path):
    """No folder of the driver, no GPUs, no version."""
    driver, gpus = probe_nvidia(tmp_path, tmp_path)
    if driver.listed_by == "nvml":
        pytest.skip("this machine has NVML")
    assert (driver.version, driver.nodes, gpus) == (None, (), ())
    assert driver.listing_error.startswith("GPUS_UNKNOWN: NVML (libnvidia-ml.so.1) does not load")
