"""Liger's rotation, which reads and writes q and k once. Unverified on a GPU.

Liger turns q and k where they are, and in its backward pass the gradients that it is handed. Its kernel is used here on memory of its own:
a tensor whose memory it would write to is copied before. The derivative of a rotation is the rotation back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels.implementation import KernelImpl

if TYPE_CHECKING:
    from bedstone.kernels.implementation import KernelSpec


def rope(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return q and k turned; cos and sin are `[S, D]` or `[B, S, D]`."""
    del interleaved  # refused
    return _Rope.apply(q, k, cos, sin)  # pyright: ignore[reportReturnType]


class _Rope(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(cos, sin)
        return _turn(q, k, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        cos, sin = ctx.saved_tensors
        return (*_turn(grads[0], grads[1], cos, -sin), None, None)


def _turn(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from liger_kernel.ops.rope import rope_forward  # pyright: ignore[reportMissingImports]

    return rope_forward(own_memory(q), own_memory(k), cos, sin)[:2]


def own_memory(x: torch.Tensor) -> torch.Tensor:
    """Return a copy of x `[B, H, S, D]` that lies in memory as `[B, S, H, D]`, which is how the kernel walks.

    >>> own_memory(torch.ones(1, 2, 3, 4)).stride()
    (24, 4, 8, 1)
    """
    return x.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)


def _unfit(spec: KernelSpec) -> str:
    options = spec.options.split()
    if "interleaved" in options:
        return "Liger turns halves, not neighbours"
    if "mixed" in options:
        return "it takes cos and sin in the dtype of q"
    return "it has no derivative in cos and sin" if "tables" in options else ""


def _workspace(q: torch.Tensor, k: torch.Tensor, *tables: Any) -> int:
    """The copies are the result; cos and sin may be copied."""
    del q, k
    return sum(each.nbytes for each in tables if isinstance(each, torch.Tensor))


IMPLEMENTATION = KernelImpl(
    "liger",
    rope,
    _workspace,
    _unfit,
    devices=("cuda",),
    dtypes=(torch.float32, torch.bfloat16, torch.float16),
    packages=("triton", "liger_kernel"),
    install="pip install liger-kernel",
)
