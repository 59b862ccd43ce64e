"""Liger's fused linear cross-entropy on CUDA. Unverified on a GPU; interpreted in tests.

It chunks rows as `reference.py` does, but keeps logits and their gradient in the dtype of `hidden`. Sums of the weight's gradient are float32 here
too, and token weights enter the gradients where Liger lets them in (`token_grad_output`).
"""

from __future__ import annotations

import functools
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels.implementation import KernelImpl

if TYPE_CHECKING:
    from bedstone.kernels.implementation import KernelSpec

_OLDEST = (0, 8)
_INSTALL = "pip install 'liger-kernel>=0.8'"


def losses_and_gradients(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    token_weights: torch.Tensor | None,
    ignore_index: int,
    smoothing: float,
    z_loss: float,
    softcap: float,
    of_hidden: bool,
    of_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `reference.losses_and_gradients`."""
    from liger_kernel.ops import fused_linear_cross_entropy as liger  # pyright: ignore[reportMissingImports]

    found: tuple[Any, ...] = liger.fused_linear_cross_entropy_forward(
        hidden,
        weight,
        labels,
        bias=bias,
        ignore_index=ignore_index,
        lse_square_scale=z_loss,
        label_smoothing=smoothing,
        reduction="none",
        softcap=softcap or None,
        accum_dtype=torch.float32,
        token_grad_output=token_weights,
        compute_gradients=of_hidden or of_weight,
        weight_requires_grad=of_weight,
    )
    losses, *_, grad_hidden, grad_weight, grad_bias = found
    return (
        losses if token_weights is None else losses * token_weights,
        grad_hidden if of_hidden else hidden.new_empty(0),
        grad_weight if of_weight else weight.new_empty(0),
        grad_bias if of_weight and bias is not None else weight.new_empty(0),
    )


def _workspace(hidden: torch.Tensor, weight: torch.Tensor, *rest: object) -> int:
    """Logits of as many bytes as a few copies of `hidden`, and the weight's gradient in float32 (`_CHUNK_MEM_CONST` of Liger)."""
    del rest
    return 16 * hidden.nbytes + 4 * weight.numel() + 16 * len(hidden) + 2**14


def _unfit(spec: KernelSpec) -> str:
    return "" if spec.inputs and spec.rows and spec.columns else "it takes no empty inputs"


@functools.cache
def _too_old() -> str:
    version = metadata.version("liger-kernel")
    found = tuple(int(part) for part in version.split(".")[:2])
    return "" if found >= _OLDEST else f"it needs liger-kernel 0.8, this is {version}: {_INSTALL}"


LINEAR_CROSS_ENTROPY = KernelImpl(
    "liger",
    losses_and_gradients,
    _workspace,
    _unfit,
    numerics="rounded",
    devices=("cuda",),
    dtypes=(torch.float32, torch.bfloat16, torch.float16),
    packages=("triton", "liger_kernel"),
    install=_INSTALL,
    missing=_too_old,
)
