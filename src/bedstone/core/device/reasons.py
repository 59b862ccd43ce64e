"""Reason codes: why a device can or cannot be used, as stable words for programs.

A code is part of the public interface: it is compared, logged and documented, so it never changes its meaning. The
sentence beside it in a report is for people and may be improved at any time. A plug-in may bring codes of its own.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Every reason code of the backends in this package.

    >>> Reason.DRIVER_TOO_OLD == "DRIVER_TOO_OLD"
    True
    """

    OK = "OK"
    """Nothing that could be read speaks against the device."""
    TORCH_CPU_BUILD = "TORCH_CPU_BUILD"
    """The installed PyTorch was built without this backend."""
    NO_DEVICE = "NO_DEVICE"
    """This machine has no such hardware."""
    NO_DRIVER_LIB = "NO_DRIVER_LIB"
    """The driver's user-space library cannot be loaded."""
    DRIVER_NOT_LOADED = "DRIVER_NOT_LOADED"
    """The library is there, the kernel driver does not answer it."""
    DRIVER_MISMATCH = "DRIVER_MISMATCH"
    """Library and kernel driver have different versions; usual after an update without a restart."""
    DRIVER_TOO_OLD = "DRIVER_TOO_OLD"
    """The driver serves an older major CUDA version than PyTorch was built for."""
    NO_DEVICE_NODE = "NO_DEVICE_NODE"
    """The hardware is there, its files in `/dev` are not; usual in a container."""
    DEVICE_NODE_DENIED = "DEVICE_NODE_DENIED"
    """The files in `/dev` may not be opened by this user."""
    GPUS_UNKNOWN = "GPUS_UNKNOWN"
    """The driver is there, but nothing lists its GPUs without a context."""
    VISIBLE_DEVICES_EMPTY = "VISIBLE_DEVICES_EMPTY"
    """A `*_VISIBLE_DEVICES` variable hides every device."""
    VISIBLE_DEVICES_INVALID = "VISIBLE_DEVICES_INVALID"
    """The first entry of a `*_VISIBLE_DEVICES` variable names nothing, which hides every device."""
    MASKED = "MASKED"
    """A `*_VISIBLE_DEVICES` variable hides this device."""
    MIG_PARENT_ONLY = "MIG_PARENT_ONLY"
    """The GPU is partitioned (MIG) and this process sees none of its instances."""
    MIG_UUID_UNKNOWN = "MIG_UUID_UNKNOWN"
    """No MIG instance has the UUID asked for."""
    NO_SUCH_UUID = "NO_SUCH_UUID"
    """No GPU has the UUID asked for, or several begin with it."""
    NO_SUCH_ORDINAL = "NO_SUCH_ORDINAL"
    """This process sees fewer devices than the ordinal asked for."""
    ORDER_UNKNOWN = "ORDER_UNKNOWN"
    """GPUs of different kinds without `CUDA_DEVICE_ORDER=PCI_BUS_ID`: only a context tells which ordinal is which."""
    ARCH_UNSUPPORTED = "ARCH_UNSUPPORTED"
    """PyTorch holds no kernels for this GPU's architecture."""
    EXCLUSIVE_PROCESS_BUSY = "EXCLUSIVE_PROCESS_BUSY"
    """The GPU serves one process at a time, and another one has it."""
    COMPUTE_PROHIBITED = "COMPUTE_PROHIBITED"
    """The administrator forbids computing on this GPU."""
    ECC_OR_XID = "ECC_OR_XID"
    """The driver has given the GPU up or wants it reset."""
    OUT_OF_FREE_MEMORY = "OUT_OF_FREE_MEMORY"
    """Less memory is free than `min_free_bytes` asks for."""
    FORK_AFTER_INIT = "FORK_AFTER_INIT"
    """This process was forked from one that had initialised the backend."""
    NO_METAL = "NO_METAL"
    """A Mac on which PyTorch finds no Metal device: macOS is too old, or it runs in a virtual machine."""
    OP_FALLBACK_ENABLED = "OP_FALLBACK_ENABLED"
    """A note: operations that MPS lacks run on the CPU in silence, since a variable says so."""
    BACKEND_PLUGIN_FAILED = "BACKEND_PLUGIN_FAILED"
    """The backend's own code failed."""
