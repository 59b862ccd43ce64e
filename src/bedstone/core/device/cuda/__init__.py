"""The `cuda` backend: NVIDIA GPUs by CUDA and AMD GPUs by ROCm, which PyTorch both calls `cuda`.

Unverified: these verdicts were made from composed facts only, no real GPU has been seen yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.core.device.cuda.diagnose import diagnose_cuda
from bedstone.core.device.cuda.facts import CudaFacts, DriverFacts, GpuFacts, MigFacts
from bedstone.core.device.cuda.probe import probe_cuda

if TYPE_CHECKING:
    from bedstone.core.device.report import DeviceRow

__all__ = ["CudaBackend", "CudaFacts", "DriverFacts", "GpuFacts", "MigFacts"]


class CudaBackend:
    """CUDA and ROCm.

    >>> backend = CudaBackend()
    >>> {row.backend for row in backend.diagnose(backend.probe())}
    {'cuda'}
    """

    name = "cuda"

    def probe(self) -> CudaFacts:
        """Return PyTorch's build, the driver and its GPUs; initialises nothing."""
        return probe_cuda()

    def diagnose(self, facts: CudaFacts) -> tuple[DeviceRow, ...]:
        """Return one row a visible device, then one a GPU that this process cannot address."""
        return diagnose_cuda(facts)
