"""The losses of rows of logits in Triton, which become the gradient in place. Interpreted and compiled in tests; unverified on a GPU.

Rows are chosen and logits multiplied as in `reference.py`, by torch's own matrix product. What lies between the products is one kernel that
reads the logits twice and writes them once, where plain torch takes about ten passes: the sum is kept relative to the largest logit so far.

References:
    Milakov, Gimelshein: Online normalizer calculation for softmax, 2018, https://arxiv.org/abs/1805.02867.
"""

# pyright: reportArgumentType=false, reportOperatorIssue=false
# Triton's types are those of the compiled language, which a checker of Python cannot know.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from bedstone.kernels.cross_entropy import reference
from bedstone.kernels.triton.launch import FUSED, on_device_of

BLOCK = 4096
"""Logits of a row that a program holds at a time."""


@triton.jit
def losses_kernel(  # noqa: ANN201
    logits, labels, scales, losses,  # noqa: ANN001
    vocabulary, smoothing, z_loss, softcap,  # noqa: ANN001
    SMOOTHED: tl.constexpr, CAPPED: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """One row; the names are those of the formulas in `reference.py`. A label that is no column gives NaN."""
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * vocabulary
    label = tl.load(labels + row)
    known = (label >= 0) & (label < vocabulary)
    of_label = _capped(tl.load(start + label, mask=known, other=float("nan")), softcap, CAPPED)
    largest, total, whole = -float("inf"), 0.0, 0.0
    for first in range(0, vocabulary, BLOCK):
        column = first + tl.arange(0, BLOCK)
        z = _capped(tl.load(start + column, mask=column < vocabulary, other=-float("inf")), softcap, CAPPED)
        z = tl.where(column < vocabulary, z, -float("inf"))
        above = tl.maximum(largest, tl.max(z))
        base = tl.where(above == -float("inf"), 0.0, above)  # so far every logit is -inf
        total = total * tl.exp(largest - base) + tl.sum(tl.exp(z - base))
        whole += tl.sum(tl.where(column < vocabulary, z, 0.0))
        largest = above
    lse = largest + tl.log(total)
    loss = lse - (1 - smoothing) * of_label + z_loss * lse * lse
    if SMOOTHED:  # else a logit of -inf would make it NaN
        loss -= smoothing * (whole / vocabulary)
    scale = 1.0
    if scales is not None:
        scale = tl.load(scales + row)
    tl.store(losses + row, loss * scale)
    if GRADIENT:
        factor = (1 + 2 * z_loss * lse) / total
        for first in range(0, vocabulary, BLOCK):
            column = first + tl.arange(0, BLOCK)
            z = _capped(tl.load(start + column, mask=column < vocabulary, other=0.0), softcap, CAPPED)
            grad = tl.exp(z - largest) * factor - tl.where(column == label, 1 - smoothing, 0.0)
            grad -= smoothing / vocabulary
            if CAPPED:
                grad *= 1 - (z / softcap) * (z / softcap)
            tl.store(start + column, grad * scale, mask=column < vocabulary)


@triton.jit
def _capped(z, softcap, CAPPED: tl.constexpr):  # noqa: ANN001, ANN202, N803
    """Return `softcap * tanh(z / softcap)`; Triton has no tanh that runs on every device."""
    if CAPPED:
        small = tl.exp(-2 * tl.abs(z) / softcap)
        size = softcap * (1 - small) / (1 + small)
        z = tl.where(z < 0, -size, size)
    return z


def losses_and_gradients(*args: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `reference.losses_and_gradients`."""
    return reference.by_parts(_losses, *args)


def _losses(
    z: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor | None, terms: reference.Terms, *, gradient: bool
) -> torch.Tensor:
    losses = torch.empty(len(z), dtype=torch.float32, device=z.device)
    with on_device_of(z):
        losses_kernel[len(z),](
            *(z, labels, scale, losses, z.shape[1], terms.smoothing, terms.z_loss, terms.softcap),
            *(bool(terms.smoothing), bool(terms.softcap), gradient, BLOCK),
            **FUSED,
        )
    return losses
