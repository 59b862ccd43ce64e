"""What each kernel framework takes of torch's memory, and the call that hands it over.

A `Framework` is what differs between them: devices, dtypes, strides, whether an array may be written. A dtype that one
lacks travels as unsigned integers of the same width (`bits_dtype`). A framework is imported when something is handed
over, not before.

On a GPU two streams must be ordered. In DLPack the receiver names its stream, and torch makes it wait; in the CUDA array
interface the producer names its own, and Numba waits for it; Triton launches on torch's. All of that is unverified.

References:
    DLPack, https://dmlc.github.io/dlpack/latest/python_spec.html.
    CUDA array interface, version 3, https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import UnknownNameError
from bedstone.interop import jax_rules
from bedstone.interop.handle import tensor_to_handle
from bedstone.interop.sharing import TYPE_STRINGS, Obstacle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NUMPY = frozenset(TYPE_STRINGS)
_REAL = frozenset(dtype for dtype in TYPE_STRINGS if not dtype.is_complex)
_FLOAT8 = frozenset({torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz})
_ML_DTYPES = _FLOAT8 | {torch.bfloat16, torch.float8_e8m0fnu}
_WARP_DIMENSIONS = 4
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}  # what Warp knows of torch
_found: set[str] = set()  # modules that can be imported


@dataclass(frozen=True, eq=False)
class Framework:
    """A kernel framework that can work on torch's memory.

    Attributes:
        title: What its makers call it.
        module: What is imported.
        package: What is installed.
        call: The call that hands memory over.
        hand_over: What that call is. It never copies.
        dtypes: For each type of device whose memory it reads, the dtypes that it has there.
        gpu_call: The call for memory that is not the CPU's, where that is another.
        owner: What keeps the memory alive.
        writable: Whether its arrays may be written.
        obstacle: Of a tensor: why it cannot have it, beyond device and dtype.
        copy_reason: Of a tensor: why its memory cannot be taken as it is; empty when it can.
    """

    title: str
    module: str
    package: str
    call: str
    hand_over: Callable[[torch.Tensor], Any]
    dtypes: Mapping[str, frozenset[torch.dtype]]
    gpu_call: str = ""
    owner: str = "the array, which holds the tensor"
    writable: bool = True
    obstacle: Callable[[torch.Tensor], Obstacle | None] = lambda tensor: None  # noqa: ARG005
    copy_reason: Callable[[torch.Tensor], str] = lambda tensor: ""  # noqa: ARG005

    @property
    def installed(self) -> bool:
        """Whether it can be imported; does not import it. Looked up once, since that takes longer than a hand-over."""
        if self.module in sys.modules:
            return sys.modules[self.module] is not None
        if self.module not in _found and importlib.util.find_spec(self.module) is not None:
            _found.add(self.module)
        return self.module in _found


def framework_named(name: str) -> Framework:
    """Return a framework.

    Raises:
        UnknownNameError: There is none of that name; lists them.

    >>> framework_named("jax").title
    'JAX'
    """
    try:
        return FRAMEWORKS[name]
    except (KeyError, TypeError):  # TypeError: not even a key
        raise UnknownNameError("framework", str(name), FRAMEWORKS) from None


def _to_cupy(tensor: torch.Tensor) -> Any:
    import cupy  # pyright: ignore[reportMissingImports]

    return cupy.from_dlpack(tensor)


def _to_numba(tensor: torch.Tensor) -> Any:
    if tensor.is_cpu:
        return tensor.numpy()
    from numba import cuda  # pyright: ignore[reportMissingImports]

    return cuda.as_cuda_array(tensor_to_handle(tensor))  # unlike the tensor, the handle names its stream


def _to_warp(tensor: torch.Tensor) -> Any:
    import warp  # pyright: ignore[reportMissingImports]

    warp.init()  # both calls need it; does nothing from the second time on
    if not tensor.is_cpu:
        return warp.from_dlpack(tensor)  # unlike `from_torch` it orders streams; on a CPU it takes twice the time
    if tensor.dtype in _SIGNED:
        return warp.from_torch(
            tensor.view(_SIGNED[tensor.dtype]), getattr(warp, str(tensor.dtype).removeprefix("torch."))
        )
    return warp.from_torch(tensor)


def _to_tvm_ffi(tensor: torch.Tensor) -> Any:
    import tvm_ffi  # pyright: ignore[reportMissingImports]

    return tvm_ffi.from_dlpack(tensor)


def _shape_for_warp(tensor: torch.Tensor) -> Obstacle | None:
    if 1 <= tensor.ndim <= _WARP_DIMENSIONS:
        return None
    remedy = "Flatten some first (tensor.flatten, tensor.view)." if tensor.ndim else "Call tensor.view(1) first."
    message = f"Warp's arrays have 1 to {_WARP_DIMENSIONS} dimensions, and this tensor has {tensor.ndim}."
    return Obstacle("shape", message, remedy)


def _not_interpreted_by_triton(tensor: torch.Tensor) -> Obstacle | None:
    if not tensor.is_cpu or _triton_interprets():
        return None
    message = "Triton works on CPU memory in its interpreter only, which is off."
    return Obstacle("device", message, 'Set TRITON_INTERPRET=1 before Python starts, or call tensor.to("cuda").')


def _triton_interprets() -> bool:
    triton = sys.modules.get("triton")
    if triton is not None:
        return bool(triton.knobs.runtime.interpret)
    return os.environ.get("TRITON_INTERPRET", "").lower() in {"1", "true", "on", "yes", "y"}  # as Triton will read it


FRAMEWORKS = {
    "numpy": Framework("NumPy", "numpy", "numpy", "tensor.numpy()", torch.Tensor.numpy, {"cpu": _NUMPY}),
    "cupy": Framework(
        "CuPy",
        "cupy",
        f"cupy-cuda{(torch.version.cuda or '13').partition('.')[0]}x",
        "cupy.from_dlpack(tensor)",
        _to_cupy,
        {"cuda": _NUMPY},  # its bfloat16 is from 2026, and older versions die of it
    ),
    "jax": Framework(
        "JAX",
        "jax",
        "jax",
        "jax.dlpack.from_dlpack(tensor, copy=False)",
        jax_rules.hand_over,
        dict.fromkeys(("cpu", "cuda"), _NUMPY | _ML_DTYPES),
        writable=False,
        obstacle=jax_rules.obstacle,
        copy_reason=jax_rules.copy_reason,
    ),
    "numba": Framework(
        "Numba",
        "numba",
        "numba",
        "tensor.numpy()",
        _to_numba,
        {"cpu": _NUMPY - {torch.float16}, "cuda": _NUMPY},
        gpu_call="numba.cuda.as_cuda_array(handle)",
    ),
    "warp": Framework(
        "Warp",
        "warp",
        "warp-lang",
        "warp.from_torch(tensor)",
        _to_warp,
        dict.fromkeys(("cpu", "cuda"), _REAL | {torch.bfloat16}),
        gpu_call="warp.from_dlpack(tensor)",
        obstacle=_shape_for_warp,
    ),
    "triton": Framework(
        "Triton",
        "triton",
        "triton",
        "the tensor itself",
        lambda tensor: tensor,
        dict.fromkeys(("cpu", "cuda", "xpu"), _REAL | _FLOAT8 | {torch.bfloat16}),
        owner="the tensor that comes back",
        obstacle=_not_interpreted_by_triton,
    ),
    "tvm_ffi": Framework(
        "TVM-FFI",
        "tvm_ffi",
        "apache-tvm-ffi",
        "tvm_ffi.from_dlpack(tensor)",
        _to_tvm_ffi,
        dict.fromkeys(("cpu", "cuda"), _REAL | _ML_DTYPES | {torch.float4_e2m1fn_x2}),
    ),
}
"""Every framework by name."""
