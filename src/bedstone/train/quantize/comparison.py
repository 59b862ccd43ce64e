"""Both models read the same windows; what they predict is compared and forgotten, window by window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.events import Progress, emit
from bedstone.core.torch_errors import translate_torch_errors
from bedstone.quant.compare import Divergence, logit_divergence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bedstone.train.quantize.windows import Window


def compare_models(reference: Any, packed: Any, texts: Sequence[Sequence[Window]]) -> list[Divergence]:
    """Return how far a packed model is from its reference on each text.

    Args:
        reference: The dense causal language model, in evaluation mode.
        packed: The packed one, on the same device.
        texts: The windows of each text.

    Raises:
        OutOfMemoryError: The logits of a window do not fit the device.
    """
    total, done = sum(window.predicted for windows in texts for window in windows), 0
    found: list[Divergence] = []
    for windows in texts:
        pieces: list[Divergence] = []
        for window in windows:
            emit(Progress(phase="Comparing with the dense model", done=done, total=total, unit="tokens"))
            pieces.append(_compare(reference, packed, window))
            done += window.predicted
        found.append(Divergence.joined(pieces))
    emit(Progress(phase="Comparing with the dense model", done=done, total=total, unit="tokens"))
    return found


@torch.inference_mode()
def _compare(reference: Any, packed: Any, window: Window) -> Divergence:
    ids = window.ids.to(reference.device)
    with translate_torch_errors(doing=f"read {ids.numel()} tokens", device=reference.device):
        before, after = (model(input_ids=ids, use_cache=False).logits[0, :-1] for model in (reference, packed))
    predicted = slice(-window.predicted, None)
    return logit_divergence(before[predicted], after[predicted], ids[0, predicted])
