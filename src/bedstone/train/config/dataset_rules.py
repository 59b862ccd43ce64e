"""Rules of one data set entry: its type exists, it has a file if the type reads one, and its keys have an effect.

Formats live in `bedstone.train.data`, which reads configs, so they are looked up when a config is checked and not when
this file is imported. What a format of another package reads is not known here: its keys are left to itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.core.errors import CoreError, Problem
from bedstone.train.config.schema import DatasetConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORMAT_KEYS: dict[str, frozenset[str]] = {
    "alpaca": frozenset({"path", "field_instruction", "field_input", "field_output"}),
    "chat_template": frozenset({"path", "field_messages", "message_property_mappings", "roles_to_train"}),
    "stdlib_docstrings": frozenset({"split"}),
}
"""The keys that bedstone's own formats read, besides `type` and `limit`, which every format has."""

_EVERYWHERE = frozenset({"type", "limit"})


def idle_dataset_keys(dataset: DatasetConfig) -> frozenset[str]:
    """Return the keys that a data set of this type does not read; none for the formats of other packages.

    >>> sorted(idle_dataset_keys(DatasetConfig(type="alpaca", path="a.jsonl")))
    ['field_messages', 'message_property_mappings', 'roles_to_train', 'split']
    """
    if dataset.type not in FORMAT_KEYS:
        return frozenset()
    return frozenset(DatasetConfig.model_fields) - FORMAT_KEYS[dataset.type] - _EVERYWHERE


def dataset_problems(key: str, datasets: Sequence[DatasetConfig]) -> Iterator[Problem]:
    """Yield what is wrong with the data sets of one list.

    Args:
        key: `datasets` or `test_datasets`, for the paths of the problems.
        datasets: The entries, each sound key by key.
    """
    for index, dataset in enumerate(datasets):
        place = f"{key}[{index}]"
        yield from _unknown_type(place, dataset)
        yield from _missing_path(place, dataset)
        yield from _idle(place, dataset)


def _unknown_type(place: str, dataset: DatasetConfig) -> Iterator[Problem]:
    from bedstone.train.data import formats

    try:
        formats.get(dataset.type)
    except CoreError as error:  # an unknown name, or a plug-in that does not load: both say what to do
        yield Problem(f"{place}.type", error.message, dataset.type, remedy=error.remedy)


def _missing_path(place: str, dataset: DatasetConfig) -> Iterator[Problem]:
    if not dataset.path and "path" in FORMAT_KEYS.get(dataset.type, ()):
        message = f"is missing: the type {dataset.type} reads a file."
        yield Problem(f"{place}.path", message, remedy="Give the path of a file with one JSON object a line.")


def _idle(place: str, dataset: DatasetConfig) -> Iterator[Problem]:
    for key in sorted(idle_dataset_keys(dataset) & dataset.model_fields_set):
        value = getattr(dataset, key)
        if value is not None:
            read = ", ".join(f"`{name}`" for name in sorted(FORMAT_KEYS[dataset.type]))
            message = f"has no effect: the type {dataset.type} does not read it."
            yield Problem(f"{place}.{key}", message, value, remedy=f"Remove it; this type reads {read}.")
