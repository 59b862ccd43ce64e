"""A text cut into windows of tokens, each read by the model on its own, as perplexity is commonly measured.

A model that begins every text with a special token gets it before every window. Where there is none, the first token of a window
has nothing before it and is not predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bedstone.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bedstone.train.quantize.texts import Text

WINDOW = 512
"""Tokens a window; less where the model reads less."""


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens that a model reads at once.

    Attributes:
        ids: `[1, T]`.
        predicted: How many of the last ones are compared.
    """

    ids: torch.Tensor
    predicted: int


def windows(text: Text, tokenizer: PreTrainedTokenizerBase, *, tokens: int, longest: int | None = None) -> list[Window]:
    """Return the beginning of a text in windows.

    Args:
        text: What to read.
        tokenizer: Of the model.
        tokens: How many tokens at most, over all windows.
        longest: How many the model reads at once; `None` for no limit.

    Raises:
        InvalidConfigError: The text is too short to predict a token of it.

    >>> from bedstone.testing import tiny_tokenizer
    >>> from bedstone.train.quantize.texts import Text
    >>> [(tuple(w.ids.shape), w.predicted) for w in windows(Text("a", "ab" * 500), tiny_tokenizer(), tokens=600)]
    [((1, 512), 511), ((1, 88), 87)]
    """
    prefix = _prefix(tokenizer)
    ids: list[int] = tokenizer(text.content, add_special_tokens=False, verbose=False)["input_ids"][:tokens]
    size = min(WINDOW, longest or WINDOW) - len(prefix)
    cut = [ids[start : start + size] for start in range(0, len(ids), size)]
    made = [Window(torch.tensor([[*prefix, *part]]), len(part) - (not prefix)) for part in cut]
    made = [window for window in made if window.predicted > 0]
    if not made:
        message = f"The text {text.name} has {len(ids)} token{'' if len(ids) == 1 else 's'}; at least 2 are needed to predict one."
        raise InvalidConfigError(message, argument="text", value=text.name, remedy="Give a text of some pages.")
    return made


def _prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the special tokens that the tokenizer puts in front of every text."""
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a")["input_ids"]
    return whole[: whole.index(bare[0])] if bare else []
