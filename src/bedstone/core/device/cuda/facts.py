"""What can be known about NVIDIA and AMD GPUs without a context, as plain values.

Everything that was not read is `None` (or an empty tuple where a list was read and is empty).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bedstone.core.device.pci import PciDevice  # noqa: TC001 - read at run time by facts_from_json

ComputeMode = Literal["default", "exclusive_process", "prohibited"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MigFacts:
    """A MIG instance: a part of an NVIDIA GPU that acts as a GPU of its own.

    Attributes:
        uuid: `MIG-` and a UUID.
        name: For example `NVIDIA A100-SXM4-40GB MIG 1g.5gb`.
        gpu_instance: Its GPU instance's number, part of its older name.
        compute_instance: Its compute instance's number, likewise.
        total_bytes: Memory of the instance.
        free_bytes: Memory free in the instance.
    """

    uuid: str
    name: str = ""
    gpu_instance: int | None = None
    compute_instance: int | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """A GPU as the driver lists it, whether or not this process may see it.

    Attributes:
        index: The driver's number, in order of PCI address; what `nvidia-smi` shows.
        name: The product's name.
        uuid: `GPU-` and the vendor's identifier.
        pci_id: PCI address, lower case, four-digit domain.
        total_bytes: Memory of the GPU.
        free_bytes: Memory that no process holds.
        capability: `9.0` for NVIDIA, `gfx942` for AMD.
        compute_mode: Who may compute; NVIDIA only.
        processes: Number of processes that compute on it now.
        mig_enabled: Whether it is partitioned; then only its instances can be used.
        mig: Its MIG instances.
        fault: What the driver says is wrong with it.
    """

    index: int
    name: str = ""
    uuid: str | None = None
    pci_id: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    capability: str | None = None
    compute_mode: str | None = None
    processes: int | None = None
    mig_enabled: bool = False
    mig: tuple[MigFacts, ...] = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """The driver as seen without initialising it.

    Attributes:
        library: Whether its user-space library loads: `libcuda`; for AMD, whose library PyTorch brings, the kernel part.
        library_error: Why it does not.
        version: The kernel driver's version.
        cuda: The newest CUDA version that it serves, for example `12.4`.
        nodes: Its files in `/dev`; `None` where there is no such list.
        nodes_denied: Those of them that this user may not open.
        listed_by: Who listed the GPUs: `nvml`, `proc`, `kfd`, or empty when nobody could.
        listing_error: Code word and text of the failure to list them: `DRIVER_MISMATCH: ...`.
    """

    library: bool = False
    library_error: str | None = None
    version: str | None = None
    cuda: str | None = None
    nodes: tuple[str, ...] | None = None
    nodes_denied: tuple[str, ...] = ()
    listed_by: str = ""
    listing_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaFacts:
    """Everything that the verdicts on `cuda` devices are made from.

    Attributes:
        torch_version: Version of PyTorch.
        runtime: `cuda`, `hip`, or `None` for a build without either.
        runtime_version: The CUDA or HIP version that PyTorch was built for.
        built_archs: Architectures that it holds kernels for, for example `sm_90` or `gfx942`.
        environment: The variables that matter and are set, as pairs of name and value.
        pci: The GPUs of NVIDIA and AMD on the PCI bus; `None` where there is no list.
        driver: The driver.
        gpus: What the driver lists.
        initialized: Whether this process has initialised CUDA already.
        forked_after_init: Whether the process that this one was forked from had.
        initialized_count: PyTorch's own number of devices, once initialised.
    """

    torch_version: str
    runtime: str | None = None
    runtime_version: str | None = None
    built_archs: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    pci: tuple[PciDevice, ...] | None = None
    driver: DriverFacts = DriverFacts()
    gpus: tuple[GpuFacts, ...] = ()
    initialized: bool = False
    forked_after_init: bool = False
    initialized_count: int | None = None

    def variable(self, name: str) -> str | None:
        """Return the value of an environment variable, `None` when it is not set."""
        return dict(self.environment).get(name)
