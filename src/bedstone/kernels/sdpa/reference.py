"""Attention by torch's `scaled_dot_product_attention`, with what it lacks: windows, soft caps, packed documents.

    scores  = scale * q k^T,   with a soft cap c: c tanh(scores / c)
    weights = softmax(scores of the keys that a query may see)
    result  = weights v,       0 for a query that may see none

A causal query sees the keys up to its own place, where the last query stands at the last key; with a window of w only the last w of these.
SDPA knows causal masks and masks given as tensors, so a window is such a tensor. It has no place for a soft cap: then scores and weights are
computed as matrices, in the order in which transformers does it for Gemma 2.

Packed documents, `[T, heads, columns]` with the places where each begins, are computed one after the other, or all at once under a mask.

References:
    Vaswani et al.: Attention Is All You Need, 2017, https://arxiv.org/abs/1706.03762. Ainslie et al.: GQA, 2023, https://arxiv.org/abs/2305.13245.
    Beltagy et al.: Longformer, 2020, https://arxiv.org/abs/2004.05150 (the window). Gemma Team: Gemma 2, 2024 (the soft cap).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float,
    window: int,
    softcap: float,
) -> torch.Tensor:
    """Return what each query reads; q is `[B, H, L, D]`, k and v are `[B, G, S, D]`."""
    grouped = q.shape[1] != k.shape[1]
    if causal and mask is None and not (window or softcap) and q.shape[2] == k.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
    if causal and (window or q.shape[2] != 1):
        mask = _joined(mask, visible(q.shape[2], k.shape[2], window, q.device))
    if softcap:
        return _written_out(q, k, v, mask, scale, softcap)
    if mask is not None and mask.dtype is not torch.bool:
        mask = mask.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped)


def visible(queries: int, keys: int, window: int, device: torch.device) -> torch.Tensor:
    """Return which keys a causal query sees, bool `[queries, keys]`.

    >>> visible(2, 3, 0, torch.device("cpu")), visible(2, 3, 2, torch.device("cpu"))
    (tensor([[ True,  True, False],
            [ True,  True,  True]]), tensor([[ True,  True, False],
            [False,  True,  True]]))
    """
    place = torch.arange(keys - queries, keys, device=device).unsqueeze(1)
    key = torch.arange(keys, device=device)
    return (key <= place) & (key > place - window) if window else key <= place


def by_document(
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
    """Return what each query reads, one document after the other."""
    del max_seqlen
    lengths = cu_seqlens.diff().tolist()
    parts: list[torch.Tensor] = []
    for one, keys, values in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True):
        read = attention(as_batch(one), as_batch(keys), as_batch(values), None, causal, scale, window, softcap)
        parts.append(read.squeeze(0).transpose(0, 1))
    return torch.cat(parts) if parts else torch.zeros_like(q)


def documents_masked(
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
    """Return what each query reads, all documents at once under a mask of `[T, T]`."""
    del max_seqlen
    document = torch.searchsorted(cu_seqlens[1:].contiguous(), torch.arange(len(q), device=q.device), right=True)
    same = document.unsqueeze(1) == document
    read = attention(as_batch(q), as_batch(k), as_batch(v), same, causal, scale, window, softcap)
    return read.squeeze(0).transpose(0, 1)


def as_batch(tokens: torch.Tensor) -> torch.Tensor:
    """Return `[T, H, D]` as `[1, H, T, D]`, a view."""
    return tokens.transpose(0, 1).unsqueeze(0)


def _joined(mask: torch.Tensor | None, seen: torch.Tensor) -> torch.Tensor:
    if mask is None:
        return seen
    return mask & seen if mask.dtype is torch.bool else mask.masked_fill(~seen, float("-inf"))


def _written_out(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float, softcap: float
) -> torch.Tensor:
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = softcap * torch.tanh(q @ k.transpose(2, 3) * scale / softcap)
    blind = None
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype is torch.bool else scores + mask
        blind = (scores == float("-inf")).all(-1, keepdim=True)
        scores = scores.masked_fill(blind, 0)
    weights = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)
    return (weights if blind is None else weights.masked_fill(blind, 0)) @ v
