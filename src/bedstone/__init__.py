"""bedstone: the ground layer for AI work on PyTorch, and the jobs people run on it.

>>> import bedstone as bs
>>> bs.estimate_tensor_bytes((4096, 4096), "bf16")
33554432

Names are loaded on first use (PEP 562), so that `import bedstone` costs nothing and `bedstone --help` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from bedstone._version import __version__ as __version__

if TYPE_CHECKING:
    from bedstone.core.device import CpuFallbackWarning as CpuFallbackWarning
    from bedstone.core.device import DeviceConfig as DeviceConfig
    from bedstone.core.device import DeviceReport as DeviceReport
    from bedstone.core.device import device_report as device_report
    from bedstone.core.device import get_device as get_device
    from bedstone.core.device import warn_if_cpu as warn_if_cpu
    from bedstone.core.dtype import PrecisionMode as PrecisionMode
    from bedstone.core.dtype import accumulator_dtype as accumulator_dtype
    from bedstone.core.dtype import bits_per_element as bits_per_element
    from bedstone.core.dtype import bytes_per_element as bytes_per_element
    from bedstone.core.dtype import is_floating_point as is_floating_point
    from bedstone.core.dtype import is_training_dtype as is_training_dtype
    from bedstone.core.errors import CoreError as CoreError
    from bedstone.core.errors import DeviceMismatchError as DeviceMismatchError
    from bedstone.core.errors import DeviceNotAvailableError as DeviceNotAvailableError
    from bedstone.core.errors import DimensionMismatchError as DimensionMismatchError
    from bedstone.core.errors import FrameworkError as FrameworkError
    from bedstone.core.errors import InvalidConfigError as InvalidConfigError
    from bedstone.core.errors import KernelError as KernelError
    from bedstone.core.errors import OutOfMemoryError as OutOfMemoryError
    from bedstone.core.errors import PluginError as PluginError
    from bedstone.core.errors import ShapeMismatchError as ShapeMismatchError
    from bedstone.core.errors import StorageError as StorageError
    from bedstone.core.errors import UnknownNameError as UnknownNameError
    from bedstone.core.errors import UnsupportedError as UnsupportedError
    from bedstone.core.events import Event as Event
    from bedstone.core.events import emit as emit
    from bedstone.core.logging import LogConfig as LogConfig
    from bedstone.core.logging import init_logging as init_logging
    from bedstone.core.logging import log_memory_usage as log_memory_usage
    from bedstone.core.logging import log_metric as log_metric
    from bedstone.core.logging import log_training_step as log_training_step
    from bedstone.core.memory import MemoryTracker as MemoryTracker
    from bedstone.core.memory import estimate_attention_memory as estimate_attention_memory
    from bedstone.core.memory import estimate_tensor_bytes as estimate_tensor_bytes
    from bedstone.core.protocols import Dequantize as Dequantize
    from bedstone.core.protocols import GpuDispatchable as GpuDispatchable
    from bedstone.core.protocols import Quantize as Quantize
    from bedstone.core.protocols import ValidatableConfig as ValidatableConfig
    from bedstone.core.torch_errors import translate_torch_errors as translate_torch_errors
    from bedstone.interop import TensorBuffer as TensorBuffer
    from bedstone.interop import allocate_output_buffer as allocate_output_buffer
    from bedstone.interop import handle_to_tensor as handle_to_tensor
    from bedstone.interop import tensor_to_handle as tensor_to_handle
    from bedstone.quant import QuantizedTensor as QuantizedTensor
    from bedstone.quant import quantize as quantize
    from bedstone.train import Run as Run
    from bedstone.train import finetune as finetune
    from bedstone.train import load_run as load_run

_ROOMS = {
    "bedstone.core.device": "CpuFallbackWarning DeviceConfig DeviceReport device_report get_device warn_if_cpu",
    "bedstone.core.dtype": (
        "PrecisionMode accumulator_dtype bits_per_element bytes_per_element is_floating_point is_training_dtype"
    ),
    "bedstone.core.errors": (
        "CoreError DeviceMismatchError DeviceNotAvailableError DimensionMismatchError FrameworkError "
        "InvalidConfigError KernelError OutOfMemoryError PluginError ShapeMismatchError StorageError "
        "UnknownNameError UnsupportedError"
    ),
    "bedstone.core.events": "Event emit",
    "bedstone.core.logging": "LogConfig init_logging log_memory_usage log_metric log_training_step",
    "bedstone.core.memory": "MemoryTracker estimate_attention_memory estimate_tensor_bytes",
    "bedstone.core.protocols": "Dequantize GpuDispatchable Quantize ValidatableConfig",
    "bedstone.core.torch_errors": "translate_torch_errors",
    "bedstone.interop": "TensorBuffer allocate_output_buffer handle_to_tensor tensor_to_handle",
    "bedstone.quant": "QuantizedTensor quantize",
    "bedstone.train": "Run finetune load_run",
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names.split()}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll] - tested to agree


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'bedstone' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
