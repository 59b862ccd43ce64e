"""What a model computes before its output head, for those models whose logits are the head's output and nothing more.

Some models scale or cap their logits after the head, and no attribute says so. So the head is asked to return its input for one
call: if that very tensor is what the model returns as its logits, nothing follows the head, and the loss may take its place.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from bedstone.repro.rng import capture_rng, restore_rng

if TYPE_CHECKING:
    from collections.abc import Generator

    import torch

_ends_in_head: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
"""What was found out about a model."""


def hidden_before_head(model: nn.Module, base: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, nn.Linear] | None:
    """Run a model up to its head.

    Args:
        model: What is called.
        base: The model of transformers in it.
        inputs: What it is called with.

    Returns:
        What the head would be given, and the head; `None` if it is no plain linear layer, if somebody watches it, or if the model does
        more with its output. Finding the last out costs a forward pass once a model, which leaves the random numbers as they were.
    """
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    if type(head) is not nn.Linear or type(head.weight) is not nn.Parameter or _is_watched(head):
        return None
    known = _ends_in_head.get(base)
    if known is False:
        return None
    before = capture_rng() if known is None else {}
    with _returning_its_input(head) as seen:
        found = model(**inputs).logits
    if known is None:
        known = _ends_in_head[base] = len(seen) == 1 and found is seen[0]
        if not known:
            restore_rng(before)
    return (found, head) if known else None


def _is_watched(head: nn.Module) -> bool:
    return bool(head._forward_hooks or head._forward_pre_hooks or "forward" in vars(head))  # noqa: SLF001 - no other way to ask


@contextmanager
def _returning_its_input(head: nn.Module) -> Generator[list[torch.Tensor]]:
    seen: list[torch.Tensor] = []

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(hidden)
        return hidden

    head.forward = forward
    try:
        yield seen
    finally:
        del head.forward
