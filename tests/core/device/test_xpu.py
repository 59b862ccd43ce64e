"""Verdicts on Intel GPUs, from facts composed by hand: none was recorded on Intel hardware yet."""

from __future__ import annotations

from dataclasses import replace

from bedstone.core.device.pci import PciDevice
from bedstone.core.device.xpu import XpuBackend, XpuFacts
from bedstone.testing.backend import check_backend

ARC = PciDevice(address="0000:03:00.0", vendor="intel", device="56a0")
GOOD = XpuFacts(
    torch_version="2.13.0+xpu",
    built=True,
    runtime_version="20250201",
    pci=(ARC,),
    count=2,
    names=("Arc A770", "Arc A380"),
)
CPU_BUILD = XpuFacts(torch_version="2.13.0+cpu", pci=(ARC,))
MASKED = replace(GOOD, count=0, names=(), mask="9")
NO_DRIVER = replace(GOOD, count=0, names=())
FORKED = replace(GOOD, count=None, names=(), forked_after_init=True)
NONE = replace(CPU_BUILD, pci=())
UNKNOWN = replace(CPU_BUILD, pci=None)


def verdicts(facts):
    return [(row.device, row.verdict, row.code) for row in XpuBackend().diagnose(facts)]


def test_every_device_that_pytorch_counts_is_a_row():
    """With its name once it is known."""
    assert verdicts(GOOD) == [("xpu:0", "usable", "OK"), ("xpu:1", "usable", "OK")]
    assert [row.name for row in XpuBackend().diagnose(GOOD)] == ["Arc A770", "Arc A380"]


def test_says_why_there_is_none():
    """Each obstacle has its own code."""
    assert verdicts(CPU_BUILD) == [(None, "unusable", "TORCH_CPU_BUILD")]
    assert verdicts(UNKNOWN) == [(None, "absent", "TORCH_CPU_BUILD")]
    assert verdicts(NONE) == [(None, "absent", "NO_DEVICE")]
    assert verdicts(MASKED) == [(None, "unusable", "VISIBLE_DEVICES_EMPTY")]
    assert verdicts(NO_DRIVER) == [(None, "unusable", "NO_DRIVER_LIB")]
    assert verdicts(FORKED) == [(None, "unusable", "FORK_AFTER_INIT")]


def test_the_sentences():
    """Read once by a person."""
    (row,) = XpuBackend().diagnose(CPU_BUILD)
    assert row.reason == "PyTorch 2.13.0+cpu is built without XPU (Intel display device at 0000:03:00.0)."
    (row,) = XpuBackend().diagnose(MASKED)
    assert (row.reason, row.mask) == (
        "ZE_AFFINITY_MASK='9' leaves no device that PyTorch counts.",
        "ZE_AFFINITY_MASK=9",
    )
    (row,) = XpuBackend().diagnose(NO_DRIVER)
    assert row.reason == "PyTorch counts no XPU device; on the PCI bus: 0000:03:00.0."


def test_keeps_the_contract():
    """The kit that plug-ins run."""
    check_backend(XpuBackend(), recorded=(GOOD, CPU_BUILD, MASKED, NO_DRIVER, FORKED, NONE, UNKNOWN))
