"""Liger's norms, which read x once. Unverified on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bedstone.kernels.implementation import KernelImpl

if TYPE_CHECKING:
    from bedstone.kernels.implementation import KernelSpec

WIDEST = 2**16
"""Columns that Liger takes."""


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    """Return x with mean 0 and variance 1, times the weight, plus the bias."""
    from liger_kernel.ops.layer_norm import LigerLayerNormFunction  # pyright: ignore[reportMissingImports]

    return LigerLayerNormFunction.apply(x, weight, bias, eps)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, rounding: str) -> torch.Tensor:
    """Return x divided by its root mean square, times the weight. The gradient is not written over the one from above."""
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction  # pyright: ignore[reportMissingImports]

    return LigerRMSNormFunction.apply(x, weight, eps, offset, rounding, False)


def too_wide(spec: KernelSpec) -> str:
    """Return why a row does not fit into the registers of one program, or nothing."""
    return "" if spec.columns <= WIDEST else f"it takes up to {WIDEST} columns"


def _unfit(spec: KernelSpec) -> str:
    if "no-bias" in spec.options.split():
        return "it wants a bias"
    return too_wide(spec)


def _workspace(x: torch.Tensor, weight: torch.Tensor, *rest: object) -> int:
    """A contiguous x, means and sizes of rows; of the gradients of the weights one row for each of up to 256 processors."""
    del rest
    return x.nbytes + 8 * (x.numel() // max(len(weight), 1)) + 2 * 4 * 256 * len(weight)


LAYER_NORM = KernelImpl(
    "liger",
    layer_norm,
    _workspace,
    _unfit,
    devices=("cuda",),
    dtypes=(torch.float32, torch.bfloat16, torch.float16),
    packages=("triton", "liger_kernel"),
    install="pip install liger-kernel",
)
RMS_NORM = LAYER_NORM.but(call=rms_norm, unfit=too_wide, numerics="rounded")
