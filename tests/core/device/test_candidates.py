"""Backends by name: ours first, plug-ins after them, and whatever fails becomes a row that says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bedstone.core.device import DeviceRow, backend_names, backends, candidate_rows, device_report

GOOD = DeviceRow(backend="shelf", verdict="usable", reason="It is there.", device="meta")


class Shelf:
    """A backend made of what it is to return."""

    name = "shelf"

    def __init__(self, rows, error=None):
        self.rows, self.error = rows, error

    def probe(self):
        if self.error is not None:
            raise self.error
        return self.rows

    def diagnose(self, facts):
        return facts


def test_ours_come_first_in_order_of_preference(install):
    """A plug-in never overtakes CUDA."""
    install(Shelf([GOOD]))
    assert backend_names()[:3] == ("cuda", "xpu", "mps")
    assert "shelf" in backend_names()[3:]
    assert candidate_rows("shelf") == (GOOD,)


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (Shelf([], RuntimeError("the shelf fell down")), "RuntimeError: the shelf fell down"),
        (Shelf([]), "TypeError: diagnose() returned nothing where at least one DeviceRow belongs"),
        (Shelf(["row"]), "TypeError: diagnose() returned str where at least one DeviceRow belongs"),
    ],
)
def test_a_failure_becomes_a_row(install, backend, said):
    """The report goes on, and names backend and failure."""
    install(backend)
    (row,) = candidate_rows("shelf")
    assert (row.verdict, row.code) == ("unusable", "BACKEND_PLUGIN_FAILED")
    assert row.reason == f"The device backend 'shelf' failed: {said}"
    assert row in list(device_report("cpu"))


@pytest.mark.parametrize("device", [None, "shelf:0"])
def test_a_usable_row_must_name_a_device_that_torch_knows(install, device):
    """Found here, not at the user's first tensor."""
    install(Shelf([DeviceRow(backend="shelf", verdict="usable", reason="It is there.", device=device)]))
    (row,) = candidate_rows("shelf")
    assert row.code == "BACKEND_PLUGIN_FAILED"


def test_a_plug_in_that_does_not_load_is_a_row_and_can_be_asked_for(tmp_path, monkeypatch):
    """Installed for real, broken for real: nothing else is affected."""
    (tmp_path / "acme_tpu.py").write_text("import no_such_module_anywhere\n")
    info = tmp_path / "acme_tpu-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-tpu\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[bedstone.backends]\ntpu = acme_tpu:BACKEND\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(backends, "_plugins_read", False)
    try:
        (row,) = candidate_rows("tpu")
        assert "tpu" in backend_names()
        assert (row.code, row.device) == ("BACKEND_PLUGIN_FAILED", None)
        assert row.reason == (
            "The device backend 'tpu' failed: PluginError: The plug-in 'tpu' (acme_tpu:BACKEND of acme-tpu 1.2) does not "
            "load: ModuleNotFoundError: No module named 'no_such_module_anywhere' Run `bedstone doctor` for the whole "
            "traceback, then update or uninstall that package."
        )
    finally:
        backends._broken.clear()
        sys.modules.pop("acme_tpu", None)


def test_a_backend_that_quits_the_program_becomes_a_row(install):
    """`sys.exit` in a driver's wrapper is no reason to end a training."""
    install(Shelf([GOOD], SystemExit(3)))
    (row,) = candidate_rows("shelf")
    assert row.reason == "The device backend 'shelf' failed: SystemExit: 3"


def test_a_plugin_with_a_name_of_ours_is_no_second_backend(tmp_path):
    """It is refused; our backend must not appear twice for it."""
    info = tmp_path / "acme-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[bedstone.backends]\nmps = acme:BACKEND\n")
    (tmp_path / "acme.py").write_text("BACKEND = 'none'\n")
    program = "from bedstone.core.device import backend_names; print(*backend_names())"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["cuda", "xpu", "mps"]
