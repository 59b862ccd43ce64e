"""From the `datasets` of a configuration to examples, with a count of everything that happened on the way.

All of it runs before the model is loaded, so that a bad row costs seconds, not minutes.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from array import array
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar, get_args

import torch

from bedstone.core.errors import InvalidConfigError
from bedstone.core.events import Progress, emit, listening
from bedstone.train.data.errors import DataError
from bedstone.train.data.example import Example, ExcessLength, fit, tokenize
from bedstone.train.data.format import format_of
from bedstone.train.data.render import ChatRenderer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from transformers import PreTrainedTokenizerBase

    from bedstone.repro.seeds import SeedTree
    from bedstone.train.config.schema import DatasetConfig
    from bedstone.train.data.format import DataFormat, Row

T = TypeVar("T")
_MIN_TOKENS = 2  # one to read, one to predict


@dataclass(frozen=True, slots=True)
class DataReport:
    """What became of the rows.

    Attributes:
        rows: Rows that are used.
        tokens: Their tokens.
        trained_tokens: Those of them that count in the loss.
        truncated: How many of the rows lost their end.
        dropped: Rows that were left out, in addition to `rows`, since they were too long.
    """

    rows: int
    tokens: int
    trained_tokens: int
    truncated: int
    dropped: int


@dataclass(frozen=True, slots=True)
class DataSplit:
    """Examples in a fixed order, with their report.

    Attributes:
        examples: At least one.
        report: Counts.
        fingerprint: As from `fingerprint`.
    """

    examples: tuple[Example, ...]
    report: DataReport
    fingerprint: str


def load_split(
    datasets: Sequence[DatasetConfig],
    tokenizer: PreTrainedTokenizerBase,
    *,
    sequence_len: int = 512,
    excess_length_strategy: ExcessLength = "truncate",
    train_on_inputs: bool = False,
) -> DataSplit:
    """Read, render and tokenize data sets, one after the other.

    Work of more than two seconds emits `Progress` events.

    Args:
        datasets: Entries of `datasets` or `test_datasets`.
        tokenizer: The model's tokenizer.
        sequence_len: Longest example in tokens, at least 2.
        excess_length_strategy: What happens to longer ones: `truncate`, `drop` or `raise`.
        train_on_inputs: Train prompts too.

    Raises:
        InvalidConfigError: An argument is out of range, or a data set names what its format does not have.
        UnknownNameError: A `type` that no format has.
        StorageError: A file is missing or unreadable.
        DataError: A row is broken, a data set is empty, or every row was dropped.
        UnsupportedError: The tokenizer lacks an end token, or a chat template that a format needs.
    """
    _check(datasets, sequence_len, excess_length_strategy)
    chat = ChatRenderer(tokenizer)
    planned = [(dataset, format_of(dataset)) for dataset in datasets]
    found = [(row, fmt, dataset) for dataset, fmt in planned for row in _rows(fmt, dataset)]
    examples: list[Example] = []
    for row, fmt, dataset in paced(found, "tokenizing", "rows"):
        segments = fmt.render(row, chat, dataset)
        whole = tokenize(segments, tokenizer, source=row.source, train_on_inputs=train_on_inputs)
        example = fit(whole, sequence_len, excess_length_strategy)
        if example is not None:
            examples.append(example)
    if not examples:
        message = (
            f"Each of the {len(found)} rows has more tokens than `sequence_len` (={sequence_len}) and was dropped."
        )
        raise DataError(message, remedy="Raise `sequence_len`, or set `excess_length_strategy: truncate`.")
    return _split(examples, dropped=len(found) - len(examples))


def split_validation(split: DataSplit, val_set_size: float, seeds: SeedTree) -> tuple[DataSplit, DataSplit | None]:
    """Set rows aside for validation, chosen by a keyed permutation; both parts keep the order of the whole.

    Args:
        split: All rows.
        val_set_size: A share in (0, 1), rounded up to whole rows, or a number of rows, or 0 for none.
        seeds: The choice is a function of its key `"validation"` and the number of rows.

    Returns:
        The rows to train on, and those to validate on or `None`.

    Raises:
        InvalidConfigError: `val_set_size` is negative, a fraction above 1, or leaves nothing to train on.
    """
    count = len(split.examples)
    held = math.ceil(val_set_size * count) if 0 < val_set_size < 1 else int(val_set_size)
    if val_set_size < 0 or (val_set_size >= 1 and held != val_set_size) or held >= count:
        message = f"`val_set_size` (={val_set_size}) must be a share below 1 or a number of rows below all {count}."
        raise InvalidConfigError(message, argument="val_set_size", value=val_set_size)
    if not held:
        return split, None
    chosen = set(torch.randperm(count, generator=seeds.generator("validation"))[:held].tolist())
    kept = [example for i, example in enumerate(split.examples) if i not in chosen]
    set_aside = [example for i, example in enumerate(split.examples) if i in chosen]
    return _split(kept, dropped=split.report.dropped), _split(set_aside, dropped=0)


def fingerprint(examples: Iterable[Example]) -> str:
    """Return the SHA-256 of ids and labels in order, as hex: equal exactly when training would see the same data.

    >>> fingerprint([Example([1, 2], [-100, 2])]) == fingerprint([Example([1, 2], [1, 2])])
    False
    """
    digest = hashlib.sha256()
    for example in examples:
        # The length first, so that no two ways to cut a sequence into examples look alike.
        numbers = array("q", [len(example.input_ids), *example.input_ids, *example.labels])
        if sys.byteorder == "big":
            numbers.byteswap()
        digest.update(numbers.tobytes())
    return digest.hexdigest()


def paced(items: Sequence[T], phase: str, unit: str, *, after_s: float = 2.0, every_s: float = 0.5) -> Iterator[T]:
    """Yield `items`, and emit `Progress` events once that takes long.

    Args:
        items: What is worked on between two yields.
        phase: What the work is called.
        unit: What an item is called.
        after_s: Seconds until the first event.
        every_s: Seconds between two events.
    """
    due, shown = time.monotonic() + after_s, False
    for done, item in enumerate(items):
        if listening(Progress.level) and time.monotonic() >= due:
            emit(Progress(phase=phase, done=done, total=len(items), unit=unit))
            due, shown = time.monotonic() + every_s, True
        yield item
    if shown:
        emit(Progress(phase=phase, done=len(items), total=len(items), unit=unit))


def _check(datasets: Sequence[DatasetConfig], sequence_len: int, strategy: str) -> None:
    if not datasets:
        raise InvalidConfigError("`datasets` is empty.", argument="datasets", remedy="Name at least one data set.")
    if sequence_len < _MIN_TOKENS:
        message = f"`sequence_len` (={sequence_len}) must be at least {_MIN_TOKENS}."
        raise InvalidConfigError(message, argument="sequence_len", value=sequence_len)
    if strategy not in get_args(ExcessLength):
        message = f"`excess_length_strategy` (={strategy!r}) must be one of {', '.join(get_args(ExcessLength))}."
        raise InvalidConfigError(message, argument="excess_length_strategy", value=strategy)


def _rows(fmt: DataFormat, dataset: DatasetConfig) -> list[Row]:
    rows = list(islice(fmt.rows(dataset), dataset.limit))
    if not rows:
        name = dataset.path or dataset.type
        raise DataError(f"The data set {name} has no rows.", source=name)
    return rows


def _split(examples: Sequence[Example], *, dropped: int) -> DataSplit:
    report = DataReport(
        rows=len(examples),
        tokens=sum(len(example.input_ids) for example in examples),
        trained_tokens=sum(example.trained_tokens for example in examples),
        truncated=sum(example.truncated for example in examples),
        dropped=dropped,
    )
    return DataSplit(tuple(examples), report, fingerprint(examples))
