"""torch's `varlen_attn`, FlashAttention over packed documents: no mask, and no work between documents. Unverified on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bedstone.kernels.implementation import KernelImpl

if TYPE_CHECKING:
    from bedstone.kernels.implementation import KernelSpec

_WIDEST, _MULTIPLE = 256, 8  # columns of a head


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int | None,
    causal: bool,
    scale: float,
    window: int,
    softcap: float,
) -> torch.Tensor:
    """Return what each query reads."""
    from torch.nn.attention.varlen import varlen_attn

    del softcap  # refused
    cu_seqlens = cu_seqlens.to(torch.int32)
    longest = (
        int(cu_seqlens.diff().max()) if max_seqlen is None else max_seqlen
    )  # waits for the device if nobody says it
    back = window - 1 if window else -1
    return varlen_attn(  # pyright: ignore[reportReturnType] - a tensor unless more is asked
        q,
        k,
        v,
        cu_seqlens,
        cu_seqlens,
        longest,
        longest,
        scale=scale,
        window_size=(back, 0 if causal else -1),
        enable_gqa=q.shape[1] != k.shape[1],
    )


def _unfit(spec: KernelSpec) -> str:
    if "softcap" in spec.options.split():
        return "it has no soft cap"
    if spec.columns > _WIDEST or spec.columns % _MULTIPLE:
        return f"it takes heads of up to {_WIDEST} columns, a multiple of {_MULTIPLE}"
    return ""


def _workspace(q: torch.Tensor, *rest: object) -> int:
    """Sizes of rows, and of a gradient of q in float32."""
    del rest
    return 4 * q.numel() + 8 * q.numel() // max(q.shape[-1], 1) + 2**16


IMPLEMENTATION = KernelImpl(
    "torch_varlen",
    attention,
    _workspace,
    _unfit,
    numerics="rounded",
    deterministic=False,
    devices=("cuda",),
    dtypes=(torch.bfloat16, torch.float16),
    capability=(8, 0),
)
