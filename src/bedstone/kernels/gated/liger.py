"""Liger's SwiGLU and GeGLU, which read gate and up once and keep nothing between the curve and the product. Unverified on a GPU.

Liger's own autograd functions write the gradients over gate and up: whoever else keeps these reads wrong values, and so does a second
backward pass, without an error. Its kernels are used here with copies in the backward pass instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels.implementation import KernelImpl

if TYPE_CHECKING:
    from bedstone.kernels.implementation import KernelSpec

WIDEST = 2**16
"""Columns that Liger takes."""


def glu(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    """Return the curve of the gate, times up."""
    return _Glu.apply(gate, up, activation)


class _Glu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
        ctx.activation = activation
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        return _kernels(activation)[0](gate, up)[-1]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        gate, up = (each.reshape(-1, each.shape[-1]).clone() for each in ctx.saved_tensors)
        return (*_kernels(ctx.activation)[1](gate, up, grads[0].contiguous()), None)


def _kernels(activation: str) -> tuple[Any, Any]:
    if activation == "silu":
        from liger_kernel.ops.swiglu import swiglu_backward, swiglu_forward  # pyright: ignore[reportMissingImports]

        return swiglu_forward, swiglu_backward
    from liger_kernel.ops.geglu import geglu_backward, geglu_forward  # pyright: ignore[reportMissingImports]

    return geglu_forward, geglu_backward


def _unfit(spec: KernelSpec) -> str:
    if "gelu" in spec.options.split():
        return "Liger has GeGLU in its tanh form only"
    return "" if spec.columns <= WIDEST else f"it takes up to {WIDEST} columns"


def _workspace(gate: torch.Tensor, up: torch.Tensor, activation: str) -> int:
    """Copies of gate and up, contiguous ones or those of the backward pass."""
    del activation
    return gate.nbytes + up.nbytes


IMPLEMENTATION = KernelImpl(
    "liger",
    glu,
    _workspace,
    _unfit,
    devices=("cuda",),
    dtypes=(torch.float32, torch.bfloat16, torch.float16),
    packages=("triton", "liger_kernel"),
    install="pip install liger-kernel",
)
