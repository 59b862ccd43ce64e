"""Cross-entropy of the trained tokens, computed only where there are any."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from bedstone.train.data import IGNORED

if TYPE_CHECKING:
    import torch

    from bedstone.train.data import Batch


def loss_sum(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return the sum over the trained tokens of -log p(token | everything before it), in nats, a float32 scalar.

    A sum, so that callers weight every token alike over any number of batches. The output head, for a large vocabulary
    most of a small model's work, runs only at positions where some example of the batch is trained.

    Args:
        model: A causal language model of transformers, or one that peft wraps.
        batch: On the model's device.
    """
    # Position t predicts token t + 1. The output is not kept: its logits would outlive their use by a backward pass.
    shifted = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORED)
    kept = (shifted != IGNORED).any(dim=0).nonzero().squeeze(1)
    only: dict[str, Any] = {"logits_to_keep": kept} if _keeps_positions(model) else {}
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False, **only).logits
    labels = shifted[:, kept] if only else shifted
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")


def _keeps_positions(model: torch.nn.Module) -> bool:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore[reportCallIssue]
    return "logits_to_keep" in inspect.signature(base.forward).parameters  # pyright: ignore[reportAttributeAccessIssue]
