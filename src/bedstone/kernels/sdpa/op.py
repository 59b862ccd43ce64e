"""Attention as people call it, its checks and its implementations. What it computes is told in `reference.py`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import DimensionMismatchError, InvalidConfigError, ShapeMismatchError
from bedstone.kernels.composed import ComposedOp, spec_of
from bedstone.kernels.implementation import KernelImpl
from bedstone.kernels.sdpa import flex, reference, varlen

if TYPE_CHECKING:
    from collections.abc import Callable

    from bedstone.kernels.implementation import KernelSpec
    from bedstone.kernels.registry import Sample


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    window: int = 0,
    softcap: float = 0.0,
) -> torch.Tensor:
    """Return what each query reads from the values, weighed by how well its keys fit.

    Args:
        q: `[B, H, L, D]`, floating.
        k: `[B, G, S, D]`, of the same dtype; G divides H, each key head serves H / G query heads.
        v: Of the shape and dtype of k.
        mask: Broadcast to `[B, H, L, S]`: bool, True where a query may see a key, or floating, added to the scores.
        causal: A query sees keys up to its own place; the last query stands at the last key.
        scale: Of the scores; `D ** -0.5` when left out.
        window: How many keys a causal query sees at most, its own counted; 0 for all.
        softcap: Scores become `softcap * tanh(scores / softcap)`; 0 for none.

    Returns:
        `[B, H, L, D]`, of the dtype of q; 0 where a query may see no key. Differentiable in q, k and v.

    Raises:
        DimensionMismatchError: q, k or v is not 4-dimensional.
        ShapeMismatchError: The shapes do not fit.
        InvalidConfigError: An option is out of its range.

    >>> q, k, v = torch.zeros(1, 2, 2, 4), torch.zeros(1, 1, 2, 4), torch.tensor([[[[0.0], [1.0]]]]).expand(1, 1, 2, 4)
    >>> attention(q, k, v, causal=True)[0, 0, :, 0]
    tensor([0.0000, 0.5000])
    """
    _check(q, k, v, dimensions=4, heads=1)
    if (q.shape[0], q.shape[3]) != (k.shape[0], k.shape[3]):
        raise ShapeMismatchError(expected=(q.shape[0], *k.shape[1:3], q.shape[3]), actual=tuple(k.shape), argument="k")
    _check_options(causal, window, softcap)
    return attention_op(q, k, v, mask, causal, _scale(q, scale), window, softcap)


def attention_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    *,
    max_seqlen: int | None = None,
    causal: bool = True,
    scale: float | None = None,
    window: int = 0,
    softcap: float = 0.0,
) -> torch.Tensor:
    """Return what each query reads from the keys and values of its own document.

    Args:
        q: `[T, H, D]`, floating: the tokens of all documents, one document after the other.
        k: `[T, G, D]`, of the same dtype; G divides H.
        v: Of the shape and dtype of k.
        cu_seqlens: Integers `[documents + 1]`: where each document begins, from 0; the last one is T, which is looked at on a CPU only.
        max_seqlen: Tokens of the longest document; when left out a GPU is waited for where it matters.
        causal: A query sees keys up to its own place.
        scale: Of the scores; `D ** -0.5` when left out.
        window: How many keys a causal query sees at most, its own counted; 0 for all.
        softcap: Scores become `softcap * tanh(scores / softcap)`; 0 for none.

    Returns:
        `[T, H, D]`, of the dtype of q. Differentiable in q, k and v.

    Raises:
        DimensionMismatchError: q, k or v is not 3-dimensional, or `cu_seqlens` not 1-dimensional.
        ShapeMismatchError: The shapes do not fit, or the documents do not end at T.
        InvalidConfigError: An option is out of its range.

    >>> q, v = torch.zeros(4, 1, 1), torch.arange(4.0).reshape(4, 1, 1)
    >>> attention_varlen(q, q, v, torch.tensor([0, 2, 4]))[:, 0, 0]  # documents 0 1 and 2 3
    tensor([0.0000, 0.5000, 2.0000, 2.5000])
    """
    _check(q, k, v, dimensions=3, heads=1)
    if (q.shape[0], q.shape[2]) != (k.shape[0], k.shape[2]):
        raise ShapeMismatchError(expected=(q.shape[0], k.shape[1], q.shape[2]), actual=tuple(k.shape), argument="k")
    if cu_seqlens.ndim != 1 or not len(cu_seqlens):
        raise DimensionMismatchError(expected=1, actual=cu_seqlens.ndim, argument="cu_seqlens")
    if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling() and int(cu_seqlens[-1]) != len(q):
        raise ShapeMismatchError(expected=(len(q),), actual=(int(cu_seqlens[-1]),), argument="cu_seqlens[-1]")
    _check_options(causal, window, softcap)
    return varlen_op(q, k, v, cu_seqlens, max_seqlen, causal, _scale(q, scale), window, softcap)


def _scale(q: torch.Tensor, scale: float | None) -> float:
    return max(q.shape[-1], 1) ** -0.5 if scale is None else scale


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, dimensions: int, heads: int) -> None:
    for name, each in (("q", q), ("k", k), ("v", v)):
        if each.ndim != dimensions:
            raise DimensionMismatchError(expected=dimensions, actual=each.ndim, argument=name)
    if v.shape != k.shape:
        raise ShapeMismatchError(expected=tuple(k.shape), actual=tuple(v.shape), argument="v")
    if not k.shape[heads] or q.shape[heads] % k.shape[heads]:
        message = f"`q` has {q.shape[heads]} heads, `k` has {k.shape[heads]}: not a divisor."
        raise InvalidConfigError(message, argument="k", value=k.shape[heads])


def _check_options(causal: bool, window: int, softcap: float) -> None:
    if window < 0 or (window and not causal):
        message = f"`window` (={window}) must be 0 or more, and 0 without `causal`."
        raise InvalidConfigError(message, argument="window", value=window)
    if not 0 <= softcap < float("inf"):
        message = f"`softcap` (={softcap}) must be 0 or more."
        raise InvalidConfigError(message, argument="softcap", value=softcap)


@functools.cache
def _options(grouped: bool, mask: bool, causal: bool, window: bool, softcap: bool) -> str:
    asked = {"causal": causal, "grouped": grouped, "mask": mask, "softcap": softcap, "window": window}
    return " ".join(name for name, yes in asked.items() if yes)


def _spec(q, k, v, mask, causal, scale, window, softcap):  # noqa: ANN001, ANN202
    del scale
    batch, heads, tokens, columns = q.shape
    _, groups, keys, _ = k.shape
    options = _options(heads != groups, mask is not None, causal, window > 0, softcap > 0)
    return spec_of(q, batch * heads * tokens, keys, columns, options, (k, v, mask))


def _varlen_spec(q, k, v, cu_seqlens, max_seqlen, causal, scale, window, softcap):  # noqa: ANN001, ANN202
    del cu_seqlens, max_seqlen, scale
    tokens, heads, columns = q.shape
    options = _options(heads != k.shape[1], False, causal, window > 0, softcap > 0)
    return spec_of(q, tokens * heads, tokens, columns, options, (k, v))


def _workspace(q, k, v, mask, causal, scale, window, softcap):  # noqa: ANN001, ANN202
    """A mask, or scores and weights; of halves these in float32 too."""
    del scale
    queries, keys = q.shape[2], k.shape[2]
    masks = 0 if mask is None and not causal else (2 + q.element_size()) * queries * keys * (1 + bool(window))
    matrices = 5 * max(q.element_size(), 4) * q.shape[0] * q.shape[1] * queries * keys + 2 * v.nbytes if softcap else 0
    masks *= 1 if mask is None else q.shape[0] * q.shape[1]
    return masks + matrices + 4 * q.numel() + 2**16


def _varlen_workspace(q, k, v, cu_seqlens, max_seqlen, causal, scale, window, softcap):  # noqa: ANN001, ANN202
    del cu_seqlens, max_seqlen
    one, keys, values = (reference.as_batch(each) for each in (q, k, v))
    mask = q.new_empty(1, device="meta").expand(len(q), len(q))
    return _workspace(one, keys, values, mask, causal, scale, window, softcap) // max(q.shape[1], 1) + q.nbytes


def _sample(*, masked: bool = False, causal: bool = True, window: int = 0, softcap: float = 0.0) -> Sample:
    def make(spec: KernelSpec, normal: Callable[..., torch.Tensor]) -> tuple[Any, ...]:
        q = normal(1, 2, spec.inputs, spec.columns)
        k, v = normal(1, 1, spec.rows, spec.columns), normal(1, 1, spec.rows, spec.columns)
        mask = (normal(spec.inputs, spec.rows) > 0) if masked else None
        return q, k, v, mask, causal, spec.columns**-0.5, window, softcap

    return make


def _varlen_sample(*, window: int = 0, softcap: float = 0.0) -> Sample:
    def make(spec: KernelSpec, normal: Callable[..., torch.Tensor]) -> tuple[Any, ...]:
        q = normal(spec.inputs, 2, spec.columns)
        k, v = normal(spec.inputs, 1, spec.columns), normal(spec.inputs, 1, spec.columns)
        starts = torch.tensor([0, spec.inputs // 3, spec.inputs // 2, spec.inputs], device=spec.device)
        return q, k, v, starts, None, True, spec.columns**-0.5, window, softcap

    return make


attention_op = ComposedOp(
    "attention",
    _spec,
    flex.IMPLEMENTATION,
    KernelImpl("reference", reference.attention, _workspace),
    differentiable=3,
    samples={
        "causal": _sample(),
        "full": _sample(causal=False),
        "mask": _sample(masked=True, causal=False),
        "window": _sample(window=5),
        "softcap": _sample(softcap=2.0),
    },
)
varlen_op = ComposedOp(
    "attention_varlen",
    _varlen_spec,
    varlen.IMPLEMENTATION,
    KernelImpl("by_document", reference.by_document, _varlen_workspace, devices=("cpu",)),
    KernelImpl("reference", reference.documents_masked, _varlen_workspace),
    differentiable=3,
    samples={"causal": _varlen_sample(), "window": _varlen_sample(window=5), "softcap": _varlen_sample(softcap=2.0)},
)
