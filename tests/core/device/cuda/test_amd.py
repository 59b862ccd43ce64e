"""AMD GPUs as the kernel lists them, on folders built after the files of `amdkfd`; composed, not recorded on hardware."""

from __future__ import annotations

import pytest

from bedstone.core.device.cuda.amd import _architecture, probe_amd

CPU_NODE = "cpu_cores_count 64\nsimd_count 0\ngfx_target_version 0\n"
GPU_NODE = (
    "cpu_cores_count 0\nsimd_count 1216\ngfx_target_version 90402\nlocation_id 49408\ndomain 1\n"
    "unique_id 16140901064495857664\n"
)


@pytest.fixture
def machine(tmp_path):
    """One processor and one GPU at 0001:c1:00.0."""
    nodes = tmp_path / "sys" / "class" / "kfd" / "kfd" / "topology" / "nodes"
    for number, text, name in ((0, CPU_NODE, ""), (1, GPU_NODE, "ip discovery")):
        (nodes / str(number)).mkdir(parents=True)
        (nodes / str(number) / "properties").write_text(text)
        (nodes / str(number) / "name").write_text(name + "\n")
    (tmp_path / "sys" / "module" / "amdgpu").mkdir(parents=True)
    (tmp_path / "sys" / "module" / "amdgpu" / "version").write_text("6.14.14\n")
    pci = tmp_path / "sys" / "bus" / "pci" / "devices" / "0001:c1:00.0"
    pci.mkdir(parents=True)
    for name, text in (
        ("product_name", "AMD Instinct MI300X"),
        ("mem_info_vram_total", "1000"),
        ("mem_info_vram_used", "300"),
    ):
        (pci / name).write_text(text + "\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kfd").write_text("")
    return tmp_path


def test_reads_the_gpus_and_not_the_processors(machine):
    """Name, address, memory, architecture and UUID, each from its own file."""
    driver, gpus = probe_amd(machine / "dev", machine / "sys")
    assert (driver.library, driver.version, driver.listed_by) == (True, "6.14.14", "kfd")
    assert driver.nodes == (str(machine / "dev" / "kfd"),)
    (gpu,) = gpus
    assert (gpu.index, gpu.name, gpu.pci_id) == (0, "AMD Instinct MI300X", "0001:c1:00.0")
    assert (gpu.total_bytes, gpu.free_bytes, gpu.capability) == (1000, 700, "gfx942")
    assert gpu.uuid == "GPU-e000000000000000"


def test_a_machine_without_the_driver_says_so(tmp_path):
    """The kernel module is what is missing."""
    driver, gpus = probe_amd(tmp_path, tmp_path)
    assert (driver.library, driver.library_error) == (False, "the kernel module amdgpu is not loaded")
    assert (driver.listed_by, driver.nodes, gpus) == ("", (), ())


@pytest.mark.parametrize(
    ("version", "name"),
    [(90402, "gfx942"), (90010, "gfx90a"), (110000, "gfx1100"), (100302, "gfx1032"), (120001, "gfx1201"), (0, None)],
)
def test_names_the_architecture(version, name):
    """The stepping is hexadecimal: 90010 is gfx90a."""
    assert _architecture(version) == name
