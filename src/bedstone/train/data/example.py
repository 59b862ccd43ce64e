"""Segments of text as token ids, with a label for each token that is trained.

A prompt's tokens must be the ones that the model will be asked with, so a row is tokenized as one text, and each cut
between shown and trained text is checked to fall between two tokens. Where a tokenizer joins characters across a cut,
the pieces are tokenized one by one instead: then the prompt is still what it will be, and the answer goes on from it.

Labels are aligned with the ids and not shifted: models of `transformers` predict the token at position i from those
before it, so the label at position 0 never counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Literal, cast

from bedstone.train.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import PreTrainedTokenizerBase

    from bedstone.train.data.format import Segment

ExcessLength = Literal["truncate", "drop", "raise"]
IGNORED = -100
"""The label of a token that is not trained, as torch's cross-entropy and `transformers` understand it."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row, ready for a batch.

    Args:
        input_ids: Token ids, at least one.
        labels: As long as `input_ids`: the same id where the token is trained, else `IGNORED`.
        source: The row it came from, for people.
        truncated: Whether tokens were cut off at its end.
    """

    input_ids: list[int]
    labels: list[int]
    source: str = ""
    truncated: bool = False

    @property
    def trained_tokens(self) -> int:
        """How many tokens count in the loss; the first never does, since nothing stands before it.

        >>> Example([5, 6, 7], [IGNORED, 6, 7]).trained_tokens
        2
        """
        return sum(label != IGNORED for label in self.labels[1:])


def tokenize(
    segments: Iterable[Segment], tokenizer: PreTrainedTokenizerBase, *, source: str = "", train_on_inputs: bool = False
) -> Example:
    """Turn a row's segments into token ids and labels.

    Args:
        segments: Text in order, special tokens written out.
        tokenizer: The model's tokenizer.
        source: The row, for messages.
        train_on_inputs: Train the shown text too.

    Raises:
        DataError: The row is empty, or nothing in it is trained.

    >>> from bedstone.testing.tiny import tiny_tokenizer
    >>> from bedstone.train.data.format import Segment
    >>> tokenize([Segment("Q", trained=False), Segment("A<|im_end|>", trained=True)], tiny_tokenizer())
    Example(input_ids=[51, 35, 2], labels=[-100, 35, 2], source='', truncated=False)
    """
    pieces = [
        ("".join(s.text for s in group), trained) for trained, group in groupby(segments, key=lambda s: s.trained)
    ]
    ids, labels = [], []
    for piece, (_, trained) in zip(_encode([text for text, _ in pieces], tokenizer), pieces, strict=True):
        ids += piece
        labels += piece if trained or train_on_inputs else [IGNORED] * len(piece)
    example = Example(ids, labels, source)
    if not example.trained_tokens:
        raise DataError(
            f"{source or 'The row'} has nothing to train on: no part of it is an answer.",
            source=source,
            remedy="Give it an answer (of a role in `roles_to_train`), remove it, or set `train_on_inputs: true`.",
        )
    return example


def fit(example: Example, sequence_len: int, strategy: ExcessLength = "truncate") -> Example | None:
    """Make an example at most `sequence_len` tokens long.

    Args:
        example: Any example.
        sequence_len: Longest allowed length in tokens.
        strategy: `truncate` cuts the end off, `drop` leaves the row out, `raise` refuses it.

    Returns:
        The example, a shorter one marked `truncated`, or `None` when it is dropped.

    Raises:
        DataError: The strategy is `raise` and the example is too long, or nothing trained would be left.

    >>> fit(Example([1, 2, 3, 4], [IGNORED, 2, 3, 4]), 3)
    Example(input_ids=[1, 2, 3], labels=[-100, 2, 3], source='', truncated=True)
    """
    length = len(example.input_ids)
    if length <= sequence_len:
        return example
    if strategy == "drop":
        return None
    place = example.source or "The row"
    if strategy == "raise":
        raise DataError(
            f"{place} has {length} tokens, more than `sequence_len` (={sequence_len}).",
            source=example.source,
            remedy="Raise `sequence_len`, or set `excess_length_strategy` to truncate or drop.",
        )
    short = replace(
        example, input_ids=example.input_ids[:sequence_len], labels=example.labels[:sequence_len], truncated=True
    )
    if not short.trained_tokens:
        first = next(i for i, label in enumerate(example.labels) if i and label != IGNORED)
        raise DataError(
            f"{place} has nothing to train on within `sequence_len` (={sequence_len}): its answer begins at token "
            f"{first + 1} of {length}.",
            source=example.source,
            remedy="Raise `sequence_len`, shorten the prompt, or set `excess_length_strategy: drop`.",
        )
    return short


def _encode(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The ids of each text: those of the joined text where every cut falls between two tokens, else one by one."""

    def ids(text: str) -> list[int]:
        # One text a call: a batch would start the tokenizer's threads, which a later fork of data workers disturbs.
        return cast("list[int]", tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    *cuts, whole = accumulate(texts) if texts else [""]
    joined, heads = ids(whole), [ids(text) for text in cuts]
    if any(joined[: len(head)] != head for head in heads):
        return [ids(text) for text in texts]
    bounds = [0, *map(len, heads), len(joined)]
    return [joined[start:end] for start, end in pairwise(bounds)][: len(texts)]
