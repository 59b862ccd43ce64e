"""Verdicts on Apple's GPU, from facts composed by hand: none was recorded on a Mac yet."""

from __future__ import annotations

from dataclasses import replace

from bedstone.core.device.mps import MpsBackend, MpsFacts
from bedstone.testing.backend import check_backend

MAC = MpsFacts(torch_version="2.13.0", system="Darwin", machine="arm64", os_version="15.1", built=True, available=True)


def verdict(facts):
    (row,) = MpsBackend().diagnose(facts)
    return row


def test_a_mac_with_metal_is_usable():
    """One GPU, without a number in its name."""
    row = verdict(MAC)
    assert (row.verdict, row.code, row.device, row.ordinal, row.notes) == ("usable", "OK", "mps", 0, ())
    assert (row.name, row.runtime) == ("Apple GPU (arm64)", "macOS 15.1")


def test_notes_that_missing_operations_run_on_the_cpu():
    """The variable is the user's, the silence is not."""
    assert verdict(replace(MAC, fallback="1")).notes == (
        "OP_FALLBACK_ENABLED: PYTORCH_ENABLE_MPS_FALLBACK=1, so operations that MPS lacks run on the CPU in silence.",
    )
    assert verdict(replace(MAC, fallback="0")).notes == ()


def test_says_why_there_is_none():
    """Another system, another build, no Metal."""
    row = verdict(MpsFacts(torch_version="2.13.0", system="Linux"))
    assert str(row) == "mps: absent, NO_DEVICE. MPS is a part of macOS; this is Linux."
    row = verdict(replace(MAC, built=False, available=None, machine="x86_64"))
    assert (row.verdict, row.code) == ("unusable", "TORCH_CPU_BUILD")
    assert row.reason == "PyTorch 2.13.0 is built without MPS (x86_64)."
    assert row.remedy == "Install the arm64 build of PyTorch with an arm64 Python."
    row = verdict(replace(MAC, available=False))
    assert (row.verdict, row.code) == ("unusable", "NO_METAL")
    assert row.reason == "PyTorch has MPS but finds no usable Metal device on macOS 15.1."


def test_keeps_the_contract():
    """The kit that plug-ins run."""
    cases = (MAC, replace(MAC, fallback="1"), replace(MAC, built=False, available=None), replace(MAC, available=False))
    check_backend(MpsBackend(), recorded=cases)
