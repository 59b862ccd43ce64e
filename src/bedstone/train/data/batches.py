"""Examples as tensors, in an order that is a function of the seed and the epoch alone.

Nothing here draws from a global random generator. The order of an epoch comes from a keyed one, so a run that goes on
after step 40 slices the list where it stood. `DataLoader` draws a number for its workers each time it starts; given a
generator of its own it leaves the global one, and with it every later dropout mask, alone. The batches are the same for
any number of workers, since no worker draws anything.

Shapes: B examples, T tokens of the longest of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.data import DataLoader

from bedstone.core.errors import InvalidConfigError
from bedstone.train.data.example import IGNORED, Example

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from bedstone.repro.seeds import SeedTree


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples side by side, padded on the right.

    Attributes:
        input_ids: int64 [B, T].
        attention_mask: int64 [B, T], 1 on the example and 0 on padding.
        labels: int64 [B, T], `IGNORED` where nothing is trained and on padding.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    @property
    def trained_tokens(self) -> int:
        """How many tokens count in the loss; the first of each example never does."""
        return int((self.labels[:, 1:] != IGNORED).sum())

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device; tensors that are already there are shared."""
        return Batch(self.input_ids.to(device), self.attention_mask.to(device), self.labels.to(device))


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pad examples on the right to the longest of them.

    Padding is told apart by its place, never by its id: in many models the padding token is the end-of-sequence token,
    and masking every occurrence would unlearn how to stop.

    Args:
        examples: At least one.
        pad_id: The id that fills `input_ids`; any id of the vocabulary will do, it is never looked at.

    >>> batch = collate([Example([5, 6, 2], [-100, 6, 2]), Example([5, 2], [-100, 2])], pad_id=2)
    >>> batch.input_ids.tolist(), batch.attention_mask.tolist()
    ([[5, 6, 2], [5, 2, 2]], [[1, 1, 1], [1, 1, 0]])
    >>> batch.labels.tolist()
    [[-100, 6, 2], [-100, 2, -100]]
    """
    longest = max(len(example.input_ids) for example in examples)
    gaps = [longest - len(example.input_ids) for example in examples]
    pairs = list(zip(examples, gaps, strict=True))
    return Batch(
        input_ids=torch.tensor([e.input_ids + [pad_id] * gap for e, gap in pairs]),
        attention_mask=torch.tensor([[1] * len(e.input_ids) + [0] * gap for e, gap in pairs]),
        labels=torch.tensor([e.labels + [IGNORED] * gap for e, gap in pairs]),
    )


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the tokenizer's padding token, or its end-of-sequence token, or 0; `collate` never tells it by its id.

    >>> from bedstone.testing.tiny import tiny_tokenizer
    >>> padding_id(tiny_tokenizer())
    2
    """
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return cast("int", next((i for i in known if i is not None), 0))


def batch_order(n_examples: int, batch_size: int, seeds: SeedTree, epoch: int) -> list[list[int]]:
    """Return the batches of one epoch as indices of examples: every example once, shuffled; the last may be smaller.

    Args:
        n_examples: How many examples there are, at least 0.
        batch_size: Examples a batch, at least 1.
        seeds: The order is a function of its keys `("order", epoch)`.
        epoch: Counted from 0.

    Raises:
        InvalidConfigError: `batch_size` is below 1.

    >>> from bedstone.repro.seeds import SeedTree
    >>> order = batch_order(5, 2, SeedTree(42), epoch=0)
    >>> [len(batch) for batch in order], sorted(sum(order, []))
    ([2, 2, 1], [0, 1, 2, 3, 4])
    """
    order = torch.randperm(n_examples, generator=seeds.generator("order", epoch)).tolist()
    return _chunks(order, batch_size)


def fixed_order(n_examples: int, batch_size: int) -> list[list[int]]:
    """Return batches of indices in the order of the examples, for evaluation.

    Raises:
        InvalidConfigError: `batch_size` is below 1.

    >>> fixed_order(5, 2)
    [[0, 1], [2, 3], [4]]
    """
    return _chunks(list(range(n_examples)), batch_size)


def train_loader(
    examples: Sequence[Example], order: Sequence[list[int]], *, pad_id: int, seeds: SeedTree, workers: int = 0
) -> DataLoader[Batch]:
    """Return a loader of the batches in `order`; the global random generators are neither read nor moved.

    Args:
        examples: What the indices point at.
        order: Batches of indices; slice it to go on where a run stopped.
        pad_id: As for `collate`.
        seeds: Owns the generator that `DataLoader` insists on drawing from.
        workers: Processes that make batches; 0 makes them in this one. The batches are the same.

    >>> from bedstone.repro.seeds import SeedTree
    >>> examples = [Example([i, i], [-100, i]) for i in range(5)]
    >>> loader = train_loader(examples, [[4, 0], [1]], pad_id=2, seeds=SeedTree(42))
    >>> [batch.input_ids[:, 0].tolist() for batch in loader]
    [[4, 0], [1]]
    """
    loader: DataLoader[Any] = DataLoader(
        cast("torch.utils.data.Dataset[Example]", examples),
        batch_sampler=order,
        collate_fn=partial(collate, pad_id=pad_id),
        num_workers=workers,
        generator=seeds.generator("loader"),
    )
    return loader


def _chunks(order: list[int], batch_size: int) -> list[list[int]]:
    if batch_size < 1:
        message = f"`batch_size` (={batch_size}) must be at least 1."
        raise InvalidConfigError(message, argument="batch_size", value=batch_size)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
