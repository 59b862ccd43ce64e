"""Which environment variables that are set change what bedstone does here; a mistyped name of ours is said too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.cli.errors import printable
from bedstone.cli.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

OWN = {
    "BEDSTONE_CACHE": "the folder for converted models and measurements of kernels",
    "BEDSTONE_CUDA_DEVICE": "the device that `auto` means",
    "BEDSTONE_FORCE_CPU": "the device that `auto` means",
    "BEDSTONE_KERNELS": "which implementation of an operation is taken",
    "BEDSTONE_LOG_LEVEL": "the least severe level that is logged",
}
"""Every variable that bedstone reads under its own prefix, and what it decides."""

FOREIGN = {
    "CUDA_VISIBLE_DEVICES": "which NVIDIA GPUs PyTorch sees",
    "CUDA_DEVICE_ORDER": "how NVIDIA GPUs are numbered",
    "HIP_VISIBLE_DEVICES": "which AMD GPUs PyTorch sees",
    "ROCR_VISIBLE_DEVICES": "which AMD GPUs PyTorch sees",
    "ZE_AFFINITY_MASK": "which Intel GPUs PyTorch sees",
    "PYTORCH_ALLOC_CONF": "how PyTorch allocates GPU memory",
    "PYTORCH_CUDA_ALLOC_CONF": "how PyTorch allocates GPU memory (the old name of PYTORCH_ALLOC_CONF)",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "how PyTorch looks for NVIDIA GPUs",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "whether PyTorch loads device plug-ins",
    "TORCH_LOGS": "what PyTorch logs",
    "CUBLAS_WORKSPACE_CONFIG": "whether CUDA matrix products are deterministic",
    "OMP_NUM_THREADS": "the number of computing threads",
    "OMP_WAIT_POLICY": "whether waiting threads spin",
    "OMP_PROC_BIND": "whether threads stay on their core",
    "OMP_PLACES": "which cores threads run on",
    "GOMP_SPINCOUNT": "how long waiting threads spin",
    "MKL_NUM_THREADS": "the number of threads in matrix products",
    "HF_HOME": "where downloaded models lie",
    "HF_HUB_CACHE": "where downloaded models lie",
    "HF_HUB_OFFLINE": "whether models may be downloaded",
    "HF_ENDPOINT": "where models are downloaded from",
    "TOKENIZERS_PARALLELISM": "whether tokenizers use several threads",
    "PYTHONHASHSEED": "the order of Python's sets",
    "RANK": "the number of this process in a distributed run",
    "LOCAL_RANK": "the number of this process on this machine",
    "WORLD_SIZE": "the number of processes in a distributed run",
    "NO_COLOR": "colour off",
    "FORCE_COLOR": "colour on, for pipes too",
    "XDG_CACHE_HOME": "the folder above BEDSTONE_CACHE's default",
}
"""Other people's variables that are respected, never changed, and what each decides."""

WORTH_A_LOOK = {
    "PYTORCH_ENABLE_MPS_FALLBACK": "operations that MPS lacks run on the CPU in silence",
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "every GPU allocation goes to the driver, which is slow",
    "CUDA_LAUNCH_BLOCKING": "every GPU kernel is waited for, which is slow",
}
"""Variables that make a run slow or surprising when they are set."""


def check_environment(environment: Mapping[str, str], deciding: str = "") -> list[Finding]:
    """Return a finding for each variable that is set and has an effect.

    Args:
        environment: Names and values, usually `os.environ`.
        deciding: The variable that the device was chosen by, if one was.

    >>> [finding.text for finding in check_environment({"OMP_NUM_THREADS": "2", "HOME": "/root"})]
    ['2 (the number of computing threads)']
    """
    from bedstone.core.device.environment import PREFIXES

    device_variables = {f"{prefix}{name}" for prefix in PREFIXES for name in ("FORCE_CPU", "CUDA_DEVICE")}
    set_here = {name: value for name, value in sorted(environment.items()) if value}
    findings = [_device_variable(name, value, deciding) for name, value in set_here.items() if name in device_variables]
    findings += [_log_level(value) for name, value in set_here.items() if name == "BEDSTONE_LOG_LEVEL"]
    for name, value in set_here.items():
        if name in FOREIGN or name == "BEDSTONE_CACHE":
            findings.append(_variable(name, value, (FOREIGN | OWN)[name]))
        elif name in WORTH_A_LOOK:
            findings.append(_look(name, value, WORTH_A_LOOK[name], f"Unset {name} unless that is wanted."))
        elif name.startswith("BEDSTONE_") and name not in OWN:
            findings.append(_unknown(name, value))
    return findings or [Finding(topic="environment", subject="variables", status="ok", text="none that has an effect")]


def _device_variable(name: str, value: str, deciding: str) -> Finding:
    if name == deciding:
        return _variable(name, value, "decides the device")
    why = f"{deciding} decides the device" if deciding else "its value is not valid"
    return _look(name, value, f"no effect: {why}", f"Unset {name}.")


def _log_level(value: str) -> Finding:
    from bedstone.core.logging import LEVELS

    name = "BEDSTONE_LOG_LEVEL"
    if value.strip().lower() in LEVELS:
        return _variable(name, value, OWN[name])
    remedy = f"Set {name} to one of error, warn, info, debug, trace, or unset it."
    text = f"{printable(value)} (not a level; logging will refuse it)"
    return Finding(topic="environment", subject=name, status="bad", text=text, remedy=remedy)


def _unknown(name: str, value: str) -> Finding:
    from bedstone.core.errors import nearest

    guess = nearest(name, OWN)
    return _look(
        name,
        value,
        "no effect: bedstone reads no variable of this name",
        f"Did you mean {guess}?" if guess else f"Known: {', '.join(OWN)}.",
    )


def _variable(name: str, value: str, effect: str) -> Finding:
    return Finding(topic="environment", subject=name, status="ok", text=f"{printable(value)} ({effect})")


def _look(name: str, value: str, effect: str, remedy: str) -> Finding:
    text = f"{printable(value)} ({effect})"
    return Finding(topic="environment", subject=name, status="look", text=text, remedy=remedy)
