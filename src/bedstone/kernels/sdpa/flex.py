"""torch's `flex_attention`, compiled: windows and soft caps without a matrix of scores or of masks. Unverified on a GPU.

Never on a CPU: there it has no derivative, and compiled it gave other values from run to run, and crashed.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels.implementation import KernelImpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from bedstone.kernels.implementation import KernelSpec

_NARROWEST = 16  # columns of a head


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *options: Any) -> torch.Tensor:
    """Return what each query reads."""
    return computed_by(_compiled(), q, k, v, *options)


def computed_by(
    flex_attention: Callable[..., Any],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: None,
    causal: bool,
    scale: float,
    window: int,
    softcap: float,
) -> torch.Tensor:
    """Return what each query reads, by `flex_attention`, compiled or not."""
    del mask  # refused

    def capped(score: torch.Tensor, *place: torch.Tensor) -> torch.Tensor:
        del place
        return softcap * torch.tanh(score / softcap)

    return flex_attention(
        q,
        k,
        v,
        score_mod=capped if softcap else None,
        block_mask=_block_mask(q.shape[2], k.shape[2], window, q.device) if causal else None,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )


@functools.lru_cache(maxsize=16)
def _block_mask(queries: int, keys: int, window: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        del batch, head
        place = query + (keys - queries)
        return (key <= place) & (key > place - window) if window else key <= place

    return create_block_mask(seen, None, None, queries, keys, device=device)


@functools.cache
def _compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def _unfit(spec: KernelSpec) -> str:
    options = spec.options.split()
    if "mask" in options:
        return "it takes rules, not a mask that is a tensor"
    if not {"window", "softcap"} & set(options):
        return "SDPA computes this without a compiler"
    return "" if spec.columns >= _NARROWEST else f"it takes heads of {_NARROWEST} columns or more"


def _workspace(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *options: Any) -> int:
    """Sizes of rows, and which blocks of 128 x 128 are seen, while that is found out one by one."""
    del v, options
    return 8 * q.numel() // max(q.shape[-1], 1) + 2 * q.shape[2] * k.shape[2] + 2**16


IMPLEMENTATION = KernelImpl(
    "flex",
    attention,
    _workspace,
    _unfit,
    numerics="rounded",
    deterministic=False,
    devices=("cuda",),
    dtypes=(torch.float32, torch.bfloat16, torch.float16),
    packages=("triton",),
    only="on a CPU flex_attention has no derivative, and compiled it gave other values from run to run",
)
