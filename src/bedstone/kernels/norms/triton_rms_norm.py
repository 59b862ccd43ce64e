"""RMSNorm in Triton, forward and backward: the example of the page "Write a Triton kernel". Interpreted and compiled in tests; unverified on a GPU.

With n = x / sqrt(mean(x^2) + eps), g = offset + weight and dY from above:

    y  = n g
    dn = dY g        dx = (dn - n mean(dn n)) / sqrt(mean(x^2) + eps)        dg = sum over rows of dY n

A program keeps a whole row in registers, so that x is read once. In the backward pass it goes through several rows and sums its part of dg;
the parts are summed afterwards, always in the same order, where atomic additions would give other bits in each run.
"""

# pyright: reportArgumentType=false
# Triton's types are those of the compiled language, which a checker of Python cannot know.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from bedstone.kernels.triton.launch import FUSED, on_device_of

PROGRAMS = 256
"""Programs of the backward pass at most: rows of the parts of dg."""


@triton.jit
def rms_norm_kernel(x, weight, out, inverses, columns, eps, offset, LLAMA: tl.constexpr, BLOCK: tl.constexpr):  # noqa: ANN001, ANN201, N803
    """One row: its inverse size, and the row times it times the weight."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < columns
    wide = tl.load(x + row * columns + column, mask=mask, other=0.0).to(tl.float32)
    inverse = 1 / tl.sqrt(tl.sum(wide * wide) / columns + eps)
    tl.store(inverses + row, inverse)
    normal = wide * inverse
    gain = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32) + offset
    if LLAMA:  # rounded twice, as such models were trained
        normal = normal.to(x.dtype.element_ty).to(tl.float32)
        gain = gain.to(weight.dtype.element_ty).to(tl.float32)
    tl.store(out + row * columns + column, (normal * gain).to(out.dtype.element_ty), mask=mask)


@triton.jit
def rms_norm_grad_kernel(  # noqa: ANN201
    grad, x, weight, inverses, grad_x, parts,  # noqa: ANN001
    rows, columns, offset, several,  # noqa: ANN001
    LLAMA: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Several rows of dx, and their part of dg."""
    column = tl.arange(0, BLOCK)
    mask = column < columns
    gain = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32) + offset
    if LLAMA:
        gain = gain.to(weight.dtype.element_ty).to(tl.float32)
    part = tl.zeros([BLOCK], tl.float32)
    first = tl.program_id(0).to(tl.int64) * several
    for row in range(first, tl.minimum(first + several, rows)):
        inverse = tl.load(inverses + row)
        normal = tl.load(x + row * columns + column, mask=mask, other=0.0).to(tl.float32) * inverse
        above = tl.load(grad + row * columns + column, mask=mask, other=0.0).to(tl.float32)
        by_normal = above * gain
        if LLAMA:
            part += above * normal.to(x.dtype.element_ty).to(tl.float32)
            by_normal = by_normal.to(x.dtype.element_ty).to(tl.float32)
        else:
            part += above * normal
        by_x = (by_normal - normal * (tl.sum(by_normal * normal) / columns)) * inverse
        tl.store(grad_x + row * columns + column, by_x.to(grad_x.dtype.element_ty), mask=mask)
    tl.store(parts + tl.program_id(0) * columns + column, part, mask=mask)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, rounding: str) -> torch.Tensor:
    """As `reference.rms_norm`; differentiable once."""
    return _RmsNorm.apply(x, weight, eps, offset, rounding == "llama")


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, llama: bool
    ) -> torch.Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        columns = len(weight)
        rows = x.numel() // max(columns, 1)
        inverses = torch.empty(rows, dtype=torch.float32, device=x.device)
        out = torch.empty_like(x, dtype=torch.promote_types(x.dtype, weight.dtype) if llama else x.dtype)
        ctx.save_for_backward(x, weight, inverses)
        ctx.options = (offset, llama)
        if out.numel():
            with on_device_of(x):
                block = triton.next_power_of_2(columns)
                rms_norm_kernel[rows,](x, weight, out, inverses, columns, eps, offset, llama, block, **FUSED)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, inverses = ctx.saved_tensors
        offset, llama = ctx.options
        rows, columns = len(inverses), len(weight)
        several = max(triton.cdiv(rows, PROGRAMS), 1)
        grad_x = torch.empty_like(x)
        parts = torch.empty(triton.cdiv(rows, several), columns, dtype=torch.float32, device=x.device)
        if x.numel():
            with on_device_of(x):
                rms_norm_grad_kernel[len(parts),](
                    *(grads[0].contiguous(), x, weight, inverses, grad_x, parts, rows, columns, offset, several),
                    *(llama, triton.next_power_of_2(columns)),
                    **FUSED,
                )
        return grad_x, parts.sum(0).to(weight.dtype), None, None, None
