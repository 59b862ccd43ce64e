"""Cross-entropy of the trained tokens, computed only where there are any."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from bedstone.kernels.cross_entropy import chunked_cross_entropy, linear_cross_entropy
from bedstone.train.data import IGNORED
from bedstone.train.output_head import hidden_before_head

if TYPE_CHECKING:
    from bedstone.train.data import Batch


def loss_sum(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return the sum over the trained tokens of -log p(token | everything before it), in nats, a float32 scalar.

    A sum, so that callers weight every token alike over any number of batches. The output head, for a large vocabulary
    most of a small model's work, runs only at positions where some example of the batch is trained, and together with
    the cross-entropy, so that the logits never exist as a whole. A model that does more with its logits than return
    them, or whose head is no plain linear layer, computes them all.

    Args:
        model: A causal language model of transformers, or one that peft wraps.
        batch: On the model's device.
    """
    # Position t predicts token t + 1. The output is not kept: its logits would outlive their use by a backward pass.
    shifted = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORED)
    kept = (shifted != IGNORED).any(dim=0).nonzero().squeeze(1)
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore[reportCallIssue]
    keeps = "logits_to_keep" in inspect.signature(base.forward).parameters
    only: dict[str, Any] = {"logits_to_keep": kept} if keeps else {}
    labels = (shifted[:, kept] if keeps else shifted).flatten()
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False, **only}
    before = hidden_before_head(model, base, inputs)
    if before is not None:
        return _of_hidden(*before, labels)
    logits = model(**inputs).logits
    return chunked_cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORED, reduction="sum")


def _of_hidden(hidden: torch.Tensor, head: torch.nn.Linear, labels: torch.Tensor) -> torch.Tensor:
    """The loss from what the head is given, in the dtype in which the head would have computed."""
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.weight.dtype
    bias = None if head.bias is None else head.bias.to(dtype)
    rows, weight = hidden.flatten(0, 1).to(dtype), head.weight.to(dtype)
    with torch.autocast(kind, enabled=False):
        return linear_cross_entropy(rows, weight, labels, bias, reduction="sum", ignore_index=IGNORED)
