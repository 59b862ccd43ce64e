"""Asking NVML by ctypes, on a small C library with NVML's functions: signatures, struct layouts and error codes are real."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from bedstone.core.device.cuda.facts import GpuFacts, MigFacts
from bedstone.core.device.cuda.nvidia import _cuda_version
from bedstone.core.device.cuda.nvml import ask_nvml

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Returns a function that compiles the library; its argument is what `nvmlInit_v2` answers."""
    folder = tmp_path_factory.mktemp("nvml")

    def compiled(init=0):
        library = folder / f"libnvidia-ml-{init}.so.1"
        source = Path(__file__).parent / "fake_nvml.c"
        command = ["cc", "-shared", "-fPIC", "-w", f"-DINIT={init}", "-o", str(library), str(source)]
        subprocess.run(command, check=True)
        return str(library)

    return compiled


def test_reads_every_gpu_and_its_instances(build):
    """A whole GPU that is occupied, a partitioned one with its one instance, and one that is lost."""
    answer = ask_nvml(build())
    assert (answer.driver_version, answer.error) == ("580.65.06", None)
    whole, split, lost = answer.gpus
    assert whole == GpuFacts(
        index=0,
        name="NVIDIA H100",
        uuid="GPU-0000",
        pci_id="0000:3b:00.0",
        total_bytes=80 << 30,
        free_bytes=(80 << 30) - 4096,
        capability="9.0",
        compute_mode="exclusive_process",
        processes=2,
    )
    assert (split.uuid, split.mig_enabled, split.processes, split.compute_mode) == ("GPU-1111", True, 0, "default")
    assert split.mig == (
        MigFacts(
            uuid="MIG-aaaa",
            name="NVIDIA H100 MIG 1g.10gb",
            gpu_instance=9,
            compute_instance=1,
            total_bytes=10 << 30,
            free_bytes=(10 << 30) - 4096,
        ),
    )
    assert lost == GpuFacts(index=2, fault="the GPU has fallen off the bus (GPU_IS_LOST)")


def test_lets_the_library_go_again(build):
    """Every start is followed by an end."""
    library = build()
    ask_nvml(library)
    assert ctypes.CDLL(library).still_running() == 0


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (9, "DRIVER_NOT_LOADED: NVML does not start: error 9"),
        (18, "DRIVER_MISMATCH: NVML does not start: error 18"),
        (999, "GPUS_UNKNOWN: NVML does not start: error 999"),
    ],
)
def test_says_why_it_does_not_start(build, code, error):
    """The two usual failures have words of their own."""
    answer = ask_nvml(build(code))
    assert (answer.gpus, answer.error) == (None, error)


def test_a_missing_library_and_a_library_without_the_functions_are_said():
    """An old or foreign library answers nothing, and nothing is invented for it."""
    answer = ask_nvml("libno-such-nvml.so.1")
    assert answer.gpus is None
    assert answer.error.startswith("GPUS_UNKNOWN: NVML (libno-such-nvml.so.1) does not load: ")
    assert ask_nvml("libm.so.6").error == "GPUS_UNKNOWN: NVML does not start: error -1"


def test_the_drivers_newest_cuda_is_read_without_starting_it(build):
    """`cuDriverGetVersion` needs no `cuInit`."""
    assert _cuda_version(build()) == ("13.1", None)
    version, error = _cuda_version("libno-such-cuda.so.1")
    assert version is None
    assert "libno-such-cuda.so.1" in error
