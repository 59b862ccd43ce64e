"""What a run was made of: everything that may change its numbers, in one JSON file a person can read.

Two runs that differ can be compared by their manifests, in the order in which they are written: settings and data,
source, packages, torch and its switches, processor and devices, environment. Nothing is started to find out: a GPU that
this process has not initialised is counted, not opened.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.device.cpu import cpu_name

if TYPE_CHECKING:
    from collections.abc import Mapping

_PACKAGES = (
    "accelerate",
    "bedstone",
    "bitsandbytes",
    "datasets",
    "gguf",
    "numpy",
    "peft",
    "pydantic",
    "safetensors",
    "tokenizers",
    "torch",
    "torchao",
    "transformers",
    "triton",
)
# Variables that change numbers, or the device that makes them.
_VARIABLES = (
    "*_CUDA_DEVICE",
    "*_FORCE_CPU",
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "DNNL_*",
    "HIP_VISIBLE_DEVICES",
    "MKL_CBWR",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "ONEDNN_*",
    "PYTHONHASHSEED",
    "PYTORCH_*ALLOC_CONF",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "ROCR_VISIBLE_DEVICES",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ZE_AFFINITY_MASK",
)
# A repository must not run commands of its own, nor be written to, because somebody asked for its state.
_GIT = ("git", "-c", "core.fsmonitor=false", "--no-optional-locks")
_GIT_PATIENCE_S = 5.0


def manifest(
    config: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    seeds: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Describe this process and what it is about to do; keys always come in the same order.

    Args:
        config: The effective settings, defaults filled in; JSON values.
        data: What identifies the data, for example a fingerprint by split; JSON values.
        seeds: Seeds by name.

    Returns:
        A dictionary for `write_json_atomic`. What cannot be known is `None`, or absent where it does not exist.

    >>> made = manifest(config={"learning_rate": 2e-4}, seeds={"run": 42})
    >>> list(made)[:6], made["seeds"]
    (['format', 'version', 'created', 'config', 'data', 'seeds'], {'run': 42})
    >>> made["torch"]["version"] == torch.__version__
    True
    """
    return {
        "format": "bedstone-manifest",
        "version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": None if config is None else dict(config),
        "data": None if data is None else dict(data),
        "seeds": None if seeds is None else dict(seeds),
        "source": _source(Path()),  # not `Path.cwd()`, which fails in a folder that was removed
        "packages": _packages(),
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "torch": _torch_build(),
        "flags": _torch_flags(),
        "platform": _platform(),
        "devices": _devices(),
        "environment": _environment(os.environ),
    }


def _source(folder: Path) -> dict[str, Any] | None:
    """The commit of the repository around a folder, and the hash of what differs from it; `None` outside of one."""
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "diff", "--no-ext-diff", "--no-textconv", "--binary", "HEAD")
    untracked = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", ":/")
    return {
        "commit": commit.decode().strip(),
        "diff_sha256": hashlib.sha256(changes).hexdigest() if changes else None,
        "untracked_files": None if untracked is None else untracked.count(b"\0"),
    }


def _git(folder: Path, *words: str) -> bytes | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            [*_GIT, *words], cwd=folder, capture_output=True, timeout=_GIT_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # no git on this machine, or a repository it cannot walk in time
        return None
    return done.stdout if done.returncode == 0 else None


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _torch_build() -> dict[str, Any]:
    cuda = getattr(torch.version, "cuda", None)
    return {
        "version": torch.__version__,
        "git": torch.version.git_version,
        "cuda": cuda,
        "hip": getattr(torch.version, "hip", None),
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _torch_flags() -> dict[str, Any]:
    cuda = torch.backends.cuda
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_fp32_precision": torch.backends.cudnn.fp32_precision,
        "mkldnn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        "sdpa": {
            "flash": cuda.flash_sdp_enabled(),
            "mem_efficient": cuda.mem_efficient_sdp_enabled(),
            "cudnn": cuda.cudnn_sdp_enabled(),
            "math": cuda.math_sdp_enabled(),
        },
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
    }


def _platform() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }


def _devices() -> dict[str, Any]:
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None:
        return {"accelerator": None, "count": 0, "initialized": []}
    opened = accelerator.type == "cuda" and torch.cuda.is_initialized()
    count = torch.accelerator.device_count()
    return {
        "accelerator": accelerator.type,
        "count": count,
        "initialized": [_cuda_device(ordinal) for ordinal in range(count)] if opened else [],
    }


def _cuda_device(ordinal: int) -> dict[str, Any]:
    facts = torch.cuda.get_device_properties(ordinal)
    return {
        "name": facts.name,
        "uuid": str(getattr(facts, "uuid", "")) or None,
        "capability": f"{facts.major}.{facts.minor}",
        "total_bytes": facts.total_memory,
    }


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    wanted = {name for pattern in _VARIABLES for name in fnmatch.filter(variables, pattern)}
    return {name: variables[name] for name in sorted(wanted)}
