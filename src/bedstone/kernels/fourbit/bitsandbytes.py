"""Four bits and one scale a block, by bitsandbytes on CUDA: the same packed weight, no copy of it. Unverified on a GPU.

`gemm_4bit` unpacks in registers for few rows of x and takes nested scales as they are; for many it makes the weight dense and multiplies, as
bitsandbytes' own layers do, and so does the gradient here. How its own kernels round between is not documented: hence `rounded`.
The tests call the same functions on a CPU, where bitsandbytes has them too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels.fourbit import reference
from bedstone.kernels.implementation import KernelImpl

if TYPE_CHECKING:
    from bedstone.kernels.implementation import KernelSpec

_ALIGNED = 64  # columns; with others bitsandbytes warns and takes a slower way


def dequantize(
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested_absmax: torch.Tensor | None,
    offset: torch.Tensor | None,
    shape: list[int],
    block_size: int,
    code: str,
    dtype: torch.dtype,
) -> torch.Tensor:
    """As `reference.dequantize`."""
    scales = reference.dequantize_absmax(absmax, nested_absmax, offset)
    return _operations().dequantize_4bit.default(packed, scales, block_size, code, shape, dtype)


def linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested_absmax: torch.Tensor | None,
    offset: torch.Tensor | None,
    shape: list[int],
    block_size: int,
    code: str,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """As `reference.linear`."""
    scales, nested = absmax, ()
    if nested_absmax is not None and offset is not None:
        scales, nested = nested_absmax, (absmax, reference.dynamic_table(absmax.device), offset)
    bias = None if bias is None else bias.to(x.dtype)
    return _operations().gemm_4bit.default(x, packed, shape, scales, block_size, code, bias, *nested)


def input_grad(
    grad: torch.Tensor,
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested_absmax: torch.Tensor | None,
    offset: torch.Tensor | None,
    shape: list[int],
    block_size: int,
    code: str,
) -> torch.Tensor:
    """As `reference.input_grad`."""
    return grad @ dequantize(packed, absmax, nested_absmax, offset, shape, block_size, code, grad.dtype)


def _operations() -> Any:
    import bitsandbytes  # noqa: F401 - registers its operations

    return torch.ops.bitsandbytes


def _workspace(x: torch.Tensor, *rest: Any) -> int:
    """The dense weight, and unpacked scales."""
    shape = next(each for each in rest if isinstance(each, (list, tuple, torch.Size)))
    return math.prod(shape) * x.element_size() + _scales(rest)


def _dequantize_workspace(*args: Any) -> int:
    return _scales(args)


def _scales(args: tuple[Any, ...]) -> int:
    return 2**14 + 8 * max(each.numel() for each in args if isinstance(each, torch.Tensor)) // 32


def _unfit_dense(spec: KernelSpec) -> str:
    return "" if spec.rows and spec.columns else "it takes no empty weights"


def _unfit(spec: KernelSpec) -> str:
    if not (spec.inputs and spec.rows and spec.columns):
        return "it takes no empty inputs or weights"
    return f"it is slow where columns are no multiple of {_ALIGNED}" if spec.columns % _ALIGNED else ""


_DECLARED = KernelImpl(
    "bitsandbytes",
    linear,
    _workspace,
    _unfit,
    numerics="rounded",
    devices=("cuda",),
    dtypes=(torch.float32, torch.bfloat16, torch.float16),
    packages=("bitsandbytes",),
    install="pip install 'bitsandbytes>=0.50'",
)
LINEAR = _DECLARED
INPUT_GRAD = _DECLARED.but(call=input_grad, numerics="exact")
DEQUANTIZE = _DECLARED.but(call=dequantize, workspace=_dequantize_workspace, unfit=_unfit_dense, numerics="exact")
