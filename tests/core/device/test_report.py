"""The report: a sequence of rows, as JSON and as text, that agrees with what `get_device` does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from bedstone.core.device import DeviceReport, DeviceRow, device_report, get_device
from bedstone.core.errors import InvalidConfigError

ROWS = (
    DeviceRow(backend="cuda", verdict="absent", code="NO_DEVICE", reason="There is no GPU.", remedy="Add one."),
    DeviceRow(
        backend="cpu", verdict="usable", reason="It is always there.", device="cpu", name="EPYC", notes=("Slow.",)
    ),
)
REPORT = DeviceReport(ROWS, "auto", "default", torch.device("cpu"), "No accelerator can be used.")


def test_is_a_sequence_of_rows():
    """Iterated, counted, indexed, sliced."""
    assert (tuple(REPORT), len(REPORT), REPORT[-1], REPORT[:1]) == (ROWS, 2, ROWS[1], ROWS[:1])


def test_reads_as_text():
    """One line a candidate, and how it came about."""
    assert str(REPORT) == (
        "auto (from default) gives cpu. No accelerator can be used.\n"
        "  cuda: absent, NO_DEVICE. There is no GPU. Add one.\n"
        "  cpu (EPYC): usable, OK. It is always there. Slow.\n"
        "Read from the PyTorch build, the environment, the driver's libraries, /dev, /proc and /sys. Nothing was guessed, "
        "and no device was initialised."
    )


def test_goes_to_json_whole():
    """Numbers stay numbers, the device is text."""
    data = json.loads(json.dumps(REPORT.to_dict()))
    assert (data["selected"], data["requested"], data["source"]) == ("cpu", "auto", "default")
    assert data["rows"][1]["notes"] == ["Slow."]
    assert data["rows"][0]["total_bytes"] is None


def test_of_this_machine_has_every_backend_and_ends_with_the_cpu():
    """Whatever machine that is."""
    report = device_report()
    assert {"cuda", "xpu", "mps", "cpu"} <= {row.backend for row in report}
    assert (report[-1].device, report[-1].verdict) == ("cpu", "usable")
    assert all(row.reason.endswith(".") for row in report)


def test_agrees_with_get_device(no_accelerator):
    """For the environment, for a device that can be had, and for one that cannot."""
    with pytest.warns(UserWarning, match="using the CPU"):
        assert device_report().selected == get_device()
    report = device_report("cuda:3")
    assert (report.selected, report.requested) == (None, "cuda:3")
    assert report.reason.startswith("The device 'cuda:3' (from argument) is not available: ")


def test_names_the_variable_that_won(monkeypatch):
    """Not only that there was one."""
    monkeypatch.setenv("RUST_AI_FORCE_CPU", "1")
    monkeypatch.setenv("AXOLOTL_CUDA_DEVICE", "1")
    report = device_report()
    assert (report.requested, report.source) == ("cpu", "RUST_AI_FORCE_CPU")
    assert report.reason == "The CPU was chosen (from RUST_AI_FORCE_CPU)."


def test_refuses_what_is_no_wish():
    """As `get_device` does."""
    with pytest.raises(InvalidConfigError):
        device_report("gpu")


def test_initialises_nothing_and_a_fork_afterwards_works():
    """And the import alone asks nothing: it loads none of the driver's libraries."""
    code = (
        "import os, pathlib, torch\n"
        "from bedstone.core import device\n"
        "maps = pathlib.Path('/proc/self/maps')\n"
        "assert not maps.exists() or 'libnvidia-ml' not in maps.read_text()\n"
        "device.device_report()\n"
        "assert not torch.cuda.is_initialized()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    report = device.device_report()\n"
        "    os._exit(0 if all(row.code != 'FORK_AFTER_INIT' for row in report) else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], check=True)
