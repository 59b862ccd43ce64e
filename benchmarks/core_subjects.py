"""The objects that the statements of `core_cases.py` work on; importing it imports torch and bedstone."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from core_cases import ACCELERATE, WHEEL

import bedstone as bs
import bedstone.core.dtype
from bedstone.core.events import Metric, listening

n = 2**20
shape, bf16, cpu = (1, 32, 4096, 128), torch.bfloat16, torch.device("cpu")
one = torch.ones(8)
three = (one, torch.ones(8), torch.ones(8))
large = torch.ones(2**24)
array = np.ones(8, dtype=np.float32)
config, equal_config = bs.DeviceConfig("cpu"), bs.DeviceConfig("cpu")
tracker, devices = bs.MemoryTracker("8 GiB"), bs.MemoryTracker(limits={"cuda:0": "8 GiB"})
event = Metric(values={"loss": 2.5})
logger = logging.getLogger("core_overheads")


@dataclass(frozen=True)
class Inputs:
    """Three tensors with names, as an attention operation takes them."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


@dataclass(frozen=True)
class Plain:
    """The fields of `DeviceConfig` without its rules."""

    device: str = "auto"
    package: str = "bedstone"
    min_free_bytes: int = 0
    source: str = ""


class Nothing(bs.GpuDispatchable[Any, Any]):
    """An operation that returns its input, so that only the dispatch takes time."""

    def dispatch_gpu(self, input: Any, device: torch.device) -> Any:  # noqa: A002, ARG002
        return input

    def dispatch_cpu(self, input: Any, device: torch.device) -> Any:  # noqa: A002, ARG002
        return input


inputs, op = Inputs(*three), Nothing()


def bare(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    return left


def translated(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    with bs.translate_torch_errors(doing="return"):
        return left


def translated_sum(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    with bs.translate_torch_errors(doing="add"):
        return torch.add(left, right)


def checked(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    if left.shape != right.shape:
        raise bs.ShapeMismatchError(expected=tuple(left.shape), actual=tuple(right.shape), argument="right")
    return left


def peer_objects(peers: tuple[str, ...]) -> dict[str, Any]:
    """Return what the statements of the installed peers need, by name."""
    found: dict[str, Any] = {}
    if ACCELERATE in peers:
        import accelerate
        import accelerate.utils

        found |= {"accelerate": accelerate, "accelerator": accelerate.Accelerator()}
    if WHEEL in peers:
        import rust_ai_core_bindings as wheel

        found |= {"wheel": wheel, "other": wheel.create_memory_tracker(8.0)}
    if listening(logging.INFO) or logger.isEnabledFor(logging.INFO):
        raise AssertionError("somebody listens to events, so `emit` would not be measured idle")
    return found
