"""What stands in the way of every `cuda` device at once: no build, no hardware, no driver, everything hidden.

The checks stand in the order in which a person would have to clear the obstacles away; the first that finds something
speaks for all. Each is a pure function of the facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bedstone.core.device.cuda.visible import visible_targets
from bedstone.core.device.pci import of_vendor
from bedstone.core.device.reasons import Reason

if TYPE_CHECKING:
    from bedstone.core.device.cuda.facts import CudaFacts
    from bedstone.core.device.report import Verdict

INSTALL = "https://pytorch.org/get-started/locally/"
"""Where PyTorch says which build to install."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A reason that was found: what a row needs of it."""

    code: Reason
    reason: str
    remedy: str
    verdict: Verdict = "unusable"


def find_blocker(facts: CudaFacts) -> Finding | None:
    """Return the first obstacle that concerns every device, or `None`.

    >>> from bedstone.core.device.cuda.facts import CudaFacts
    >>> find_blocker(CudaFacts(torch_version="2.13.0+cpu", pci=())).code
    <Reason.NO_DEVICE: 'NO_DEVICE'>
    """
    checks = (_forked, _no_device, _cpu_build, _no_library, _no_node, _denied_node, _broken_driver, _too_old, _masked)
    return next((finding for finding in (check(facts) for check in checks) if finding is not None), None)


def mask_variables(facts: CudaFacts) -> tuple[tuple[str, str], ...]:
    """Return the masks that apply to this build and are set, outermost first, as pairs of name and value."""
    if facts.runtime != "hip":
        names: tuple[str, ...] = ("CUDA_VISIBLE_DEVICES",)
    else:  # HIP reads CUDA's variable where its own is not set
        hip = "CUDA_VISIBLE_DEVICES" if facts.variable("HIP_VISIBLE_DEVICES") is None else "HIP_VISIBLE_DEVICES"
        names = ("ROCR_VISIBLE_DEVICES", hip)
    return tuple((name, value) for name in names if (value := facts.variable(name)) is not None)


def _forked(facts: CudaFacts) -> Finding | None:
    if not facts.forked_after_init:
        return None
    reason = "This process was forked from one that had already initialised CUDA; CUDA cannot be used here."
    return Finding(Reason.FORK_AFTER_INIT, reason, 'Start workers with the "spawn" method, or fork before using CUDA.')


def _no_device(facts: CudaFacts) -> Finding | None:
    if facts.pci is None or _hardware(facts):
        return None
    vendor = {"cuda": "NVIDIA", "hip": "AMD"}.get(facts.runtime or "", "NVIDIA or AMD")
    build = "" if facts.runtime else f", and PyTorch {facts.torch_version} is built without CUDA and ROCm"
    return Finding(
        Reason.NO_DEVICE,
        f"This machine has no {vendor} GPU: none on the PCI bus, no device file in /dev{build}.",
        f"To use a GPU, run on a machine that has one, with a PyTorch build for it ({INSTALL}).",
        "absent",
    )


def _cpu_build(facts: CudaFacts) -> Finding | None:
    if facts.runtime is not None:
        return None
    build = f"PyTorch {facts.torch_version} is built without CUDA and ROCm"
    remedy = f"Install a PyTorch build with CUDA or ROCm: {INSTALL}."
    seen = _hardware(facts)
    if seen:
        return Finding(Reason.TORCH_CPU_BUILD, f"There is GPU hardware ({seen}), but {build}.", remedy)
    reason = f"{build}; whether this machine has a GPU could not be read."
    return Finding(Reason.TORCH_CPU_BUILD, reason, remedy, "absent")


def _no_library(facts: CudaFacts) -> Finding | None:
    if facts.driver.library:
        return None
    seen = _hardware(facts) or "unknown, the PCI bus cannot be read"
    reason = f"The GPU driver cannot be loaded: {facts.driver.library_error}. Hardware: {seen}."
    vendor = "AMD" if facts.runtime == "hip" else "NVIDIA"
    container = "--device /dev/kfd --device /dev/dri" if facts.runtime == "hip" else "--gpus all"
    return Finding(
        Reason.NO_DRIVER_LIB, reason, f"Install the {vendor} driver; in a container, start it with {container}."
    )


def _no_node(facts: CudaFacts) -> Finding | None:
    if facts.driver.nodes is None or facts.driver.nodes:
        return None
    node, option = ("/dev/kfd", "--device /dev/kfd") if facts.runtime == "hip" else ("/dev/nvidia0", "--gpus all")
    reason = f"The driver is installed, but there is no device file such as {node}."
    remedy = f"In a container, start it with {option}; otherwise load the kernel module."
    return Finding(Reason.NO_DEVICE_NODE, reason, remedy)


def _denied_node(facts: CudaFacts) -> Finding | None:
    if not facts.driver.nodes_denied:
        return None
    group = "render and video" if facts.runtime == "hip" else "that owns them, often video,"
    reason = f"This user may not open {', '.join(facts.driver.nodes_denied)}."
    return Finding(Reason.DEVICE_NODE_DENIED, reason, f"Add the user to the group {group} and log in again.")


def _broken_driver(facts: CudaFacts) -> Finding | None:
    word, _, text = (facts.driver.listing_error or "").partition(": ")
    if facts.gpus or word not in {Reason.DRIVER_MISMATCH, Reason.DRIVER_NOT_LOADED}:
        return None
    remedy = "Restart the machine: the driver was updated while it ran."
    if word == Reason.DRIVER_NOT_LOADED:
        remedy = "Load the kernel module (`sudo modprobe nvidia`), or install the driver again for this kernel."
    return Finding(Reason(word), f"The NVIDIA kernel driver does not answer. {text}.", remedy)


def _too_old(facts: CudaFacts) -> Finding | None:
    need, have = _version(facts.runtime_version), _version(facts.driver.cuda)
    # Within a major version any driver serves any runtime (NVIDIA, "CUDA Compatibility", minor version compatibility).
    if facts.runtime != "cuda" or need is None or have is None or have[0] >= need[0]:
        return None
    driver = facts.driver.version or "of unknown version"
    reason = f"The driver {driver} serves CUDA up to {facts.driver.cuda}; PyTorch is built for {facts.runtime_version}."
    return Finding(
        Reason.DRIVER_TOO_OLD, reason, f"Update the driver, or install a PyTorch build for CUDA {have[0]}: {INSTALL}."
    )


def _masked(facts: CudaFacts) -> Finding | None:
    masks = mask_variables(facts)
    for name, value in masks:
        if value.strip() in {"", "-1"}:
            reason = f"{name}={value!r} hides every GPU from this process."
            return Finding(Reason.VISIBLE_DEVICES_EMPTY, reason, f"Unset {name}, or name a GPU in it.")
    visible = visible_targets(facts.gpus, [value for _, value in masks])
    if not facts.gpus or visible.targets or visible.stopped_at is None:
        return None
    said = " and ".join(f"{name}={value!r}" for name, value in masks)
    reason = (
        f"{said} hides every GPU: the entry {visible.stopped_at!r} names none of the {len(facts.gpus)}, or comes twice."
    )
    return Finding(
        Reason.VISIBLE_DEVICES_INVALID, reason, f"Use numbers below {len(facts.gpus)}, or UUIDs from `nvidia-smi -L`."
    )


def _hardware(facts: CudaFacts) -> str:
    vendors = {"cuda": ("nvidia",), "hip": ("amd",)}.get(facts.runtime or "", ("nvidia", "amd"))
    on_bus = [f"{device.vendor} at {device.address}" for device in of_vendor(facts.pci, *vendors) or ()]
    named = [gpu.name or gpu.pci_id or f"GPU {gpu.index}" for gpu in facts.gpus]
    return ", ".join(named or on_bus or facts.driver.nodes or ())


def _version(text: str | None) -> tuple[int, ...] | None:
    parts = (text or "").split(".")
    return tuple(int(part) for part in parts if part.isdigit()) if parts[0].isdigit() else None
