"""The `xpu` backend: Intel GPUs. Unverified: never run on a real Intel GPU yet.

PyTorch's own count is the truth about ordinals, and is asked only of a build with XPU: it reads Level Zero's management
interface, which the documentation of `torch.xpu.device_count` calls safe before a fork where that interface works.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from bedstone.core.device.pci import PciDevice, of_vendor, scan_pci
from bedstone.core.device.reasons import Reason
from bedstone.core.device.report import DeviceRow

_INSTALL = "https://docs.pytorch.org/docs/stable/notes/get_start_xpu.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class XpuFacts:
    """Everything that the verdicts on `xpu` devices are made from.

    Attributes:
        torch_version: Version of PyTorch.
        built: Whether this PyTorch has XPU.
        runtime_version: The SYCL compiler version that it was built with.
        mask: The value of `ZE_AFFINITY_MASK`, `None` when not set.
        pci: Intel's display devices on the PCI bus; `None` where there is no list.
        count: PyTorch's number of devices; `None` when not asked.
        names: Their names, once this process has initialised XPU.
        forked_after_init: Whether the process that this one was forked from had initialised XPU.
    """

    torch_version: str
    built: bool = False
    runtime_version: str | None = None
    mask: str | None = None
    pci: tuple[PciDevice, ...] | None = None
    count: int | None = None
    names: tuple[str, ...] = ()
    forked_after_init: bool = False


class XpuBackend:
    """Intel GPUs.

    >>> XpuBackend().diagnose(XpuFacts(torch_version="2.13.0+cpu", pci=()))[0].verdict
    'absent'
    """

    name = "xpu"

    def probe(self) -> XpuFacts:
        """Return PyTorch's build, the PCI bus and, of a build with XPU, the number of devices."""
        built = torch.xpu._is_compiled()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - no public name
        forked = built and bool(torch.xpu._is_in_bad_fork())  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        count = torch.xpu.device_count() if built and not forked else None
        ready = built and torch.xpu.is_initialized()
        return XpuFacts(
            torch_version=str(torch.__version__),
            built=built,
            runtime_version=getattr(torch.version, "xpu", None),
            mask=os.environ.get("ZE_AFFINITY_MASK"),
            pci=of_vendor(scan_pci(), "intel"),
            count=count,
            names=tuple(torch.xpu.get_device_name(index) for index in range(count or 0)) if ready else (),
            forked_after_init=forked,
        )

    def diagnose(self, facts: XpuFacts) -> tuple[DeviceRow, ...]:
        """Return one row a device that PyTorch counts, or one that says why there is none."""
        if not facts.count:
            return (_none(facts),)
        return tuple(_device(facts, ordinal) for ordinal in range(facts.count))


def _device(facts: XpuFacts, ordinal: int) -> DeviceRow:
    return DeviceRow(
        backend="xpu",
        verdict="usable",
        reason="PyTorch counts it; name and memory are known once XPU is initialised.",
        device=f"xpu:{ordinal}",
        ordinal=ordinal,
        name=facts.names[ordinal] if facts.names else "",
        runtime=_runtime(facts),
        mask=_mask(facts),
    )


def _none(facts: XpuFacts) -> DeviceRow:
    code, reason, remedy = _why_none(facts)
    verdict = "absent" if code == Reason.NO_DEVICE or not (facts.built or facts.pci) else "unusable"
    return DeviceRow(
        backend="xpu",
        verdict=verdict,
        code=code,
        reason=reason,
        remedy=remedy,
        runtime=_runtime(facts),
        mask=_mask(facts),
    )


def _why_none(facts: XpuFacts) -> tuple[Reason, str, str]:
    seen = ", ".join(device.address for device in facts.pci or ())
    if facts.forked_after_init:
        reason = "This process was forked from one that had already initialised XPU; XPU cannot be used here."
        return Reason.FORK_AFTER_INIT, reason, 'Start workers with the "spawn" method, or fork before using XPU.'
    if facts.pci is not None and not facts.pci:
        return Reason.NO_DEVICE, "This machine has no Intel GPU: none on the PCI bus.", ""
    if not facts.built:
        where = f"Intel display device at {seen}" if seen else "whether there is an Intel GPU could not be read"
        reason = f"PyTorch {facts.torch_version} is built without XPU ({where})."
        return Reason.TORCH_CPU_BUILD, reason, f"If it is an Arc or Data Center GPU, install the XPU build: {_INSTALL}."
    if facts.mask is not None:
        reason = f"ZE_AFFINITY_MASK={facts.mask!r} leaves no device that PyTorch counts."
        return Reason.VISIBLE_DEVICES_EMPTY, reason, "Unset ZE_AFFINITY_MASK, or name a device in it."
    reason = f"PyTorch counts no XPU device; on the PCI bus: {seen or 'unknown'}."
    return Reason.NO_DRIVER_LIB, reason, f"Install Intel's GPU driver with Level Zero: {_INSTALL}."


def _runtime(facts: XpuFacts) -> str | None:
    return f"SYCL {facts.runtime_version}" if facts.runtime_version else None


def _mask(facts: XpuFacts) -> str | None:
    return None if facts.mask is None else f"ZE_AFFINITY_MASK={facts.mask}"
