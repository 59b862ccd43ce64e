"""The checks turn facts into findings: green, yellow or red, each in words and with what to do."""

from __future__ import annotations

import sys

import pytest
import torch

from bedstone.cli.checks import Room, check_devices, check_plugins, check_room, check_versions
from bedstone.cli.findings import Finding, worst
from bedstone.cli.machine import Cores
from bedstone.core.device.report import DeviceReport, DeviceRow
from bedstone.core.registry import GROUPS, PluginStatus

CPU = DeviceRow(backend="cpu", verdict="usable", reason="The CPU is always there.", device="cpu")


def report(*rows, requested="auto", selected="cpu", reason="Because."):
    """A device report of these rows."""
    device = None if selected is None else torch.device(selected)
    return DeviceReport((*rows, CPU), requested, "default", device, reason)


def test_versions_name_what_bedstone_stands_on():
    """Read from metadata."""
    found = {finding.subject: finding.text for finding in check_versions()}
    assert found["torch"] == torch.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))


def test_a_chosen_accelerator_is_green():
    """With name, memory, driver and what PyTorch was built for."""
    row = DeviceRow(
        backend="cuda",
        verdict="usable",
        reason="It is there.",
        device="cuda:0",
        name="NVIDIA H100",
        total_bytes=80 * 2**30,
        free_bytes=79 * 2**30,
        driver="580.1",
        runtime="CUDA 13.0",
    )
    choice, cuda, cpu = check_devices(report(row, selected="cuda:0"))
    assert (choice.subject, choice.status, choice.text) == ("choice (auto, from default)", "ok", "cuda:0: Because.")
    assert cuda.text == ("usable (NVIDIA H100, 79 GiB free of 80 GiB, driver 580.1, CUDA 13.0) [OK] It is there.")
    assert (cpu.subject, cpu.status) == ("cpu", "ok")


def test_a_fallback_is_yellow_and_a_chosen_cpu_is_green():
    """Choosing the CPU is a choice, not a fault."""
    assert check_devices(report())[0].status == "look"
    assert check_devices(report(requested="cpu"))[0].status == "ok"


def test_a_request_that_cannot_be_met_is_red():
    """Every run would fail."""
    found = check_devices(report(requested="cuda:7", selected=None, reason="There are two GPUs."))[0]
    assert (found.status, found.text) == ("bad", "none: There are two GPUs.")


@pytest.mark.parametrize(
    ("verdict", "code", "status"),
    [
        ("absent", "NO_DEVICE", "ok"),
        ("unusable", "TORCH_CPU_BUILD", "look"),
        ("unusable", "MASKED", "look"),
        ("unusable", "DRIVER_MISMATCH", "bad"),
        ("unusable", "BACKEND_PLUGIN_FAILED", "bad"),
        ("absent", "BACKEND_PLUGIN_FAILED", "bad"),
    ],
)
def test_idle_hardware_is_yellow_broken_is_red_absent_is_no_fault(verdict, code, status):
    """And the remedy comes along."""
    row = DeviceRow(backend="cuda", verdict=verdict, reason="So it is.", code=code, remedy="Do this.")
    found = check_devices(report(row))[1]
    assert (found.subject, found.status, found.remedy) == ("cuda", status, "Do this.")
    assert found.text == f"{verdict} [{code}] So it is."


def test_no_plug_ins_is_green():
    """And says where was looked."""
    (found,) = check_plugins([], GROUPS)
    assert (found.status, found.text.startswith("none installed (looked for bedstone.backends, ")) == ("ok", True)


def test_a_broken_plug_in_is_red_with_its_traceback():
    """Name, package, reason, and all of it for whoever mends it."""
    good = PluginStatus("bedstone.datasets", "squad", "squad:Format", "squad 1.0")
    broken = PluginStatus("bedstone.backends", "npu", "npu:Backend", "npu 2.0", "Traceback ...\nImportError: no npu\n")
    first, second = check_plugins([good, broken], GROUPS)
    assert (first.status, first.text) == ("ok", "squad:Format of squad 1.0")
    assert (second.status, second.subject) == ("bad", "bedstone.backends: npu")
    assert second.text == "npu:Backend of npu 2.0 does not load: ImportError: no npu"
    assert second.details == broken.traceback


def room(**changes):
    """A quiet machine with plenty of room."""
    facts = {
        "cores": Cores(2, "2 physical cores"),
        "torch_threads": 2,
        "load": 0.1,
        "memory_bytes": 16 * 2**30,
        "disk_bytes": {"/home/me": 50 * 2**30},
    }
    return {finding.subject: finding for finding in check_room(Room(**{**facts, **changes}))}


def test_a_quiet_machine_is_green():
    """In numbers."""
    found = room()
    assert {finding.status for finding in found.values()} == {"ok"}
    assert found["threads"].text == "torch uses 2 (2 physical cores)"
    assert found["memory"].text == "16 GiB free"
    assert found["disk at /home/me"].text == "50 GiB free"


@pytest.mark.parametrize(
    ("change", "subject", "text"),
    [
        ({"torch_threads": 64}, "threads", "torch uses 64 (2 physical cores): too many"),
        ({"load": 7.5}, "load", "7.50 in the last minute, more than the cores can serve"),
        ({"memory_bytes": 2**30}, "memory", "1 GiB free, little for a model and its checkpoints"),
        ({"disk_bytes": {"/": 2**20}}, "disk at /", "1 MiB free, little for a model and its checkpoints"),
    ],
)
def test_what_is_short_is_worth_a_look(change, subject, text):
    """Before a run finds out."""
    assert (room(**change)[subject].status, room(**change)[subject].text) == ("look", text)


def test_what_the_system_does_not_tell_is_left_out():
    """Nothing is guessed."""
    assert set(room(load=None, memory_bytes=None)) == {"threads", "disk at /home/me"}


def test_room_is_measured_here():
    """Real numbers of this machine."""
    here = Room.measure()
    assert here.torch_threads == torch.get_num_threads()
    assert all(free > 0 for free in here.disk_bytes.values())


def test_the_worst_finding_decides():
    """Red over yellow over green."""
    made = [Finding(topic="t", subject="s", status=status, text="x") for status in ("ok", "look", "bad")]
    assert [worst(made[:count]) for count in range(4)] == ["ok", "ok", "look", "bad"]
