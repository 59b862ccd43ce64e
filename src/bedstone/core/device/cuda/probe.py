"""Gathers the facts for `cuda`: PyTorch's build, the environment, the PCI bus, and the driver of the build's vendor."""

from __future__ import annotations

import os

import torch

from bedstone.core.device.cuda.amd import probe_amd
from bedstone.core.device.cuda.facts import CudaFacts
from bedstone.core.device.cuda.nvidia import probe_nvidia
from bedstone.core.device.pci import of_vendor, scan_pci

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION",
)
"""The variables that change what a process sees."""


def probe_cuda() -> CudaFacts:
    """Return the facts of this machine; initialises nothing.

    >>> probe_cuda().torch_version == torch.__version__
    True
    """
    runtime, version = _build()
    driver, gpus = probe_amd() if runtime == "hip" else probe_nvidia()
    initialized = torch.cuda.is_initialized()
    return CudaFacts(
        torch_version=str(torch.__version__),
        runtime=runtime,
        runtime_version=version,
        built_archs=tuple(torch.cuda.get_arch_list()),
        environment=tuple((name, os.environ[name]) for name in VARIABLES if name in os.environ),
        pci=of_vendor(scan_pci(), "nvidia", "amd"),
        driver=driver,
        gpus=gpus,
        initialized=initialized,
        forked_after_init=_forked_after_init(),
        initialized_count=torch.cuda.device_count() if initialized else None,
    )


def _build() -> tuple[str | None, str | None]:
    if torch.version.hip:
        return "hip", torch.version.hip
    return ("cuda", torch.version.cuda) if torch.version.cuda else (None, None)


def _forked_after_init() -> bool:
    # torch has no public name for it, and a build without CUDA lacks the function.
    asked = getattr(torch._C, "_cuda_isInBadFork", None)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return bool(asked()) if asked is not None else False
