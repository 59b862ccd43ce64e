"""Cross-entropy of `hidden @ weight.T` in plain torch, a few rows at a time; the gradients are computed while their logits exist.

For each row, with the logits z (after the soft cap), the label y, smoothing e, z-loss weight k and the weight w of the token:

    lse  = log sum exp z
    loss = w ((1 - e) (lse - z_y) + e (lse - mean z) + k lse^2)
    dz   = w (softmax(z) (1 + 2 k lse) - (1 - e) [y] - e / V)

A full matrix of logits, its softmax and its gradient are three times rows x vocabulary; here they are one buffer of a few MiB that the
next rows overwrite. Rows whose label is ignored are not computed. The gradient of a row scales with what comes from above, so that it
can be computed before that is known; that of the weight does so only for a sum over the rows.

References:
    Wijmans, Huval, Hertzberg, Koltun, Krähenbühl: Cut Your Losses in Large-Vocabulary Language Models, 2024, https://arxiv.org/abs/2411.09009.
    Chowdhery et al.: PaLM, 2022, https://arxiv.org/abs/2204.02311 (the z-loss). Gemma Team: Gemma 2, 2024 (the soft cap).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.memory import workspace_buffer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Losses = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

LOGITS_BYTES = 2**25
"""Of logits that exist at a time."""


@dataclass(frozen=True)
class Terms:
    """What the loss of a row consists of besides the logits.

    Attributes:
        smoothing: e, from 0 to below 1.
        z_loss: k, 0 for none.
        softcap: The largest magnitude of a logit, `c tanh(z / c)`; 0 for none.
    """

    smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float = 0.0


def rows_at_a_time(vocabulary: int) -> int:
    """Return how many rows of logits exist at a time, at most.

    >>> rows_at_a_time(32_000), rows_at_a_time(49_152)
    (262, 170)
    """
    return max(LOGITS_BYTES // (4 * max(vocabulary, 1)), 16)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return what the losses of logits of a dtype are computed in: float32, of float64 itself.

    >>> wide(torch.bfloat16), wide(torch.float64)
    (torch.float32, torch.float64)
    """
    return torch.promote_types(dtype, torch.float32)


def losses_and_gradients(*args: Any) -> Losses:
    """Return the loss of each row, and the gradients of their sum: of `hidden`, `weight` and `bias`, empty where not asked for.

    Args:
        args: Those of `by_parts` after the first.
    """
    return by_parts(_losses, *args)


def by_parts(
    losses_of: Callable[..., torch.Tensor],
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
) -> Losses:
    """Return losses and gradients; `losses_of` gives the losses of some rows of wide logits, and makes these the gradient if it shall."""
    dtype = wide(hidden.dtype)
    losses = hidden.new_zeros(len(labels), dtype=dtype)
    grad_hidden = torch.zeros_like(hidden) if of_hidden else hidden.new_empty(0)
    grad_weight = weight.new_zeros(weight.shape, dtype=dtype) if of_weight else weight.new_empty(0)
    with_bias = of_weight and bias is not None
    grad_bias = weight.new_zeros(len(weight) if with_bias else 0, dtype=dtype)
    terms = Terms(smoothing, z_loss, softcap)
    for rows in _parts((labels != ignore_index).nonzero().squeeze(1), rows_at_a_time(len(weight))):
        some = hidden.index_select(0, rows)
        scale = None if token_weights is None else token_weights.index_select(0, rows).to(dtype)
        logits = _logits(some, weight, bias)
        losses[rows] = losses_of(logits, labels.index_select(0, rows), scale, terms, gradient=of_hidden or of_weight)
        gradient = logits.to(weight.dtype)
        if of_hidden:
            grad_hidden[rows] = (gradient @ weight).to(hidden.dtype)
        if of_weight:
            grad_weight += gradient.t() @ some
        if with_bias:
            grad_bias += logits.sum(0)
    return losses, grad_hidden, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype)


def of_logits(
    logits: torch.Tensor,
    labels: torch.Tensor,
    scale: torch.Tensor | None,
    ignore_index: int,
    smoothing: float,
    z_loss: float,
    softcap: float,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each row of logits that exist, times its scale; and the gradient of their sum, empty if not asked for."""
    dtype = wide(logits.dtype)
    losses = logits.new_zeros(len(labels), dtype=dtype)
    grad = torch.zeros_like(logits, memory_format=torch.contiguous_format) if gradient else logits.new_empty(0)
    terms = Terms(smoothing, z_loss, softcap)
    for rows in _parts((labels != ignore_index).nonzero().squeeze(1), rows_at_a_time(logits.shape[1])):
        some = _buffer(len(rows), logits.shape[1], logits).copy_(logits[rows])
        of_row = None if scale is None else scale.index_select(0, rows).to(dtype)
        losses[rows] = _losses(some, labels.index_select(0, rows), of_row, terms, gradient=gradient)
        if gradient:
            grad[rows] = some.to(logits.dtype)
    return losses, grad


def _buffer(rows: int, vocabulary: int, like: torch.Tensor) -> torch.Tensor:
    return workspace_buffer(rows * vocabulary, wide(like.dtype), like.device, "logits").view(rows, vocabulary)


def _parts(rows: torch.Tensor, most: int) -> Iterator[torch.Tensor]:
    """Yield equal parts of at most so many rows: each reads the whole weight twice, so a small last one would be dear."""
    parts = -(-len(rows) // most)
    yield from rows.split(-(-len(rows) // parts)) if parts else ()


def _logits(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the logits in a buffer that the next rows overwrite."""
    buffer = _buffer(len(hidden), len(weight), hidden)
    if hidden.dtype is buffer.dtype:
        torch.mm(hidden, weight.t(), out=buffer)
    else:
        buffer.copy_(hidden @ weight.t())
    return buffer if bias is None else buffer.add_(bias)


def _losses(
    z: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor | None, terms: Terms, *, gradient: bool
) -> torch.Tensor:
    """Return the losses of the rows of z, which becomes the gradient of their sum."""
    slope = None
    if terms.softcap:
        z.div_(terms.softcap).tanh_()
        slope = 1 - z.square() if gradient else None
        z.mul_(terms.softcap)
    of_label = z.gather(1, labels.unsqueeze(1)).squeeze(1)
    mean = z.mean(1) if terms.smoothing else 0.0
    largest = z.amax(1)
    total = z.sub_(largest.unsqueeze(1)).exp_().sum(1)
    lse = largest + total.log()
    loss = lse - (1 - terms.smoothing) * of_label - terms.smoothing * mean + terms.z_loss * lse.square()
    if gradient:
        z.mul_(((1 + 2 * terms.z_loss * lse) / total).unsqueeze(1))
        z.scatter_add_(1, labels.unsqueeze(1), loss.new_full((len(labels), 1), terms.smoothing - 1))
        if terms.smoothing:
            z.sub_(terms.smoothing / z.shape[1])
        if slope is not None:
            z.mul_(slope)
        if scale is not None:
            z.mul_(scale.unsqueeze(1))
    return loss if scale is None else loss * scale
