"""What the NVIDIA driver lists, asked of NVML by ctypes: no package to install, and no CUDA context.

NVML is the library behind `nvidia-smi`; it comes with the driver. A question that a GPU does not answer leaves its fact
`None`. Unverified: never run on a real NVIDIA driver yet, only against a small library with the same functions (see
its test).

References:
    NVIDIA, NVML API Reference Guide, https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass, replace
from typing import Any

from bedstone.core.device.cuda.facts import GpuFacts, MigFacts
from bedstone.core.device.reasons import Reason

_SUCCESS, _INSUFFICIENT_SIZE = 0, 7
_DRIVER_NOT_LOADED, _LIBRARY_MISMATCH = 9, 18
_FAULTS = {15: "the GPU has fallen off the bus (GPU_IS_LOST)", 16: "the GPU must be reset (RESET_REQUIRED)"}
_COMPUTE_MODES = {0: "default", 1: "exclusive_process", 2: "prohibited", 3: "exclusive_process"}
_TEXT_BYTES = 96  # the largest text buffer that any of these functions documents


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Pci(ctypes.Structure):
    _fields_ = (
        ("busIdLegacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("pciDeviceId", ctypes.c_uint),
        ("pciSubSystemId", ctypes.c_uint),
        ("busId", ctypes.c_char * 32),
    )


@dataclass(frozen=True, slots=True)
class NvmlAnswer:
    """What NVML said.

    Attributes:
        gpus: Every GPU, in order of PCI address; `None` when it could not list them.
        driver_version: For example `550.54.14`.
        error: Code word and text, when it could not list them.
    """

    gpus: tuple[GpuFacts, ...] | None
    driver_version: str | None = None
    error: str | None = None


def ask_nvml(library: str | None = None) -> NvmlAnswer:
    """Load NVML, ask it for every GPU, and let it go again.

    Args:
        library: Its file; by default the name under which the driver installs it.

    >>> ask_nvml("libnone-such.so").gpus is None
    True
    """
    library = library or ("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    try:
        handle = ctypes.CDLL(library)
    except OSError as error:
        return NvmlAnswer(None, error=f"{Reason.GPUS_UNKNOWN}: NVML ({library}) does not load: {error}")
    nvml = _Nvml(handle)
    code = nvml.call("nvmlInit_v2")
    if code != _SUCCESS:
        return NvmlAnswer(None, error=_init_error(code))
    try:
        gpus = tuple(nvml.gpu(index) for index in range(nvml.number("nvmlDeviceGetCount_v2") or 0))
        return NvmlAnswer(gpus, nvml.text("nvmlSystemGetDriverVersion"))
    finally:
        nvml.call("nvmlShutdown")


def _init_error(code: int) -> str:
    word = {_DRIVER_NOT_LOADED: Reason.DRIVER_NOT_LOADED, _LIBRARY_MISMATCH: Reason.DRIVER_MISMATCH}
    return f"{word.get(code, Reason.GPUS_UNKNOWN)}: NVML does not start: error {code}"


class _Nvml:
    """The functions of NVML that we need, each as a question whose answer may be `None`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def call(self, function: str, *arguments: Any) -> int:
        """Return NVML's code; a function that this version lacks counts as a failure."""
        found = getattr(self._library, function, None)
        return -1 if found is None else int(found(*arguments))

    def number(self, function: str, *arguments: Any) -> int | None:
        value = ctypes.c_uint()
        return value.value if self.call(function, *arguments, ctypes.byref(value)) == _SUCCESS else None

    def text(self, function: str, *arguments: Any) -> str | None:
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        code = self.call(function, *arguments, buffer, ctypes.c_uint(_TEXT_BYTES))
        return buffer.value.decode("utf-8", "replace") if code == _SUCCESS else None

    def memory(self, device: ctypes.c_void_p) -> tuple[int | None, int | None]:
        memory = _Memory()
        if self.call("nvmlDeviceGetMemoryInfo", device, ctypes.byref(memory)) != _SUCCESS:
            return None, None
        return int(memory.total), int(memory.free)

    def pci_id(self, device: ctypes.c_void_p) -> str | None:
        pci = _Pci()
        if self.call("nvmlDeviceGetPciInfo_v3", device, ctypes.byref(pci)) != _SUCCESS:
            return None
        return f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0"

    def capability(self, device: ctypes.c_void_p) -> str | None:
        major, minor = ctypes.c_int(), ctypes.c_int()
        code = self.call("nvmlDeviceGetCudaComputeCapability", device, ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}" if code == _SUCCESS else None

    def processes(self, device: ctypes.c_void_p) -> int | None:
        # Asked for none of them, NVML answers how many there are, and that the room was too small.
        count = ctypes.c_uint(0)
        code = self.call("nvmlDeviceGetComputeRunningProcesses_v3", device, ctypes.byref(count), None)
        return count.value if code in {_SUCCESS, _INSUFFICIENT_SIZE} else None

    def gpu(self, index: int) -> GpuFacts:
        device = ctypes.c_void_p()
        code = self.call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device))
        if code != _SUCCESS:
            return GpuFacts(index=index, fault=_FAULTS.get(code, f"NVML gives no access to it (error {code})"))
        total, free = self.memory(device)
        mode = self.number("nvmlDeviceGetComputeMode", device)
        facts = GpuFacts(
            index=index,
            name=self.text("nvmlDeviceGetName", device) or "",
            uuid=self.text("nvmlDeviceGetUUID", device),
            pci_id=self.pci_id(device),
            total_bytes=total,
            free_bytes=free,
            capability=self.capability(device),
            compute_mode=None if mode is None else _COMPUTE_MODES.get(mode),
            processes=self.processes(device),
        )
        return self.with_instances(facts, device)

    def with_instances(self, facts: GpuFacts, device: ctypes.c_void_p) -> GpuFacts:
        current, pending = ctypes.c_uint(), ctypes.c_uint()
        code = self.call("nvmlDeviceGetMigMode", device, ctypes.byref(current), ctypes.byref(pending))
        if code != _SUCCESS or not current.value:
            return facts
        slots = range(self.number("nvmlDeviceGetMaxMigDeviceCount", device) or 0)
        instances = (self.instance(device, slot) for slot in slots)
        return replace(facts, mig_enabled=True, mig=tuple(found for found in instances if found is not None))

    def instance(self, gpu: ctypes.c_void_p, slot: int) -> MigFacts | None:
        device = ctypes.c_void_p()
        code = self.call("nvmlDeviceGetMigDeviceHandleByIndex", gpu, ctypes.c_uint(slot), ctypes.byref(device))
        uuid = self.text("nvmlDeviceGetUUID", device) if code == _SUCCESS else None
        if uuid is None:
            return None
        total, free = self.memory(device)
        return MigFacts(
            uuid=uuid,
            name=self.text("nvmlDeviceGetName", device) or "",
            gpu_instance=self.number("nvmlDeviceGetGpuInstanceId", device),
            compute_instance=self.number("nvmlDeviceGetComputeInstanceId", device),
            total_bytes=total,
            free_bytes=free,
        )
