"""Answers for keys and values that bedstone does not have: what became of them, or which name was meant.

Refusing beats ignoring: an ignored key is a run that does something else than its file says.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import nearest
from bedstone.train.config.axolotl_keys import AXOLOTL_IN_DATASET, AXOLOTL_TOP_LEVEL
from bedstone.train.config.key_group import OTHER_NAME, Group
from bedstone.train.config.other_names import NESTED_SECTIONS, OTHER_IN_DATASET, OTHER_TOP_LEVEL, OTHER_VALUES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def unknown_key(name: str, known: Iterable[str], *, in_dataset: bool = False, value: Any = None) -> tuple[str, str]:
    """Return message and remedy for a key that does not exist.

    Args:
        name: The key as written.
        known: The keys that exist in its place.
        in_dataset: Whether the key stands in an entry of `datasets`, not at the top.
        value: Its value; a mapping under the name of an axolotl-rs section is answered key by key.

    >>> unknown_key("lora_rr", ["lora_r", "lora_alpha"])
    ('unknown key.', "Did you mean 'lora_r'?")
    >>> unknown_key("deepspeed", [])[0]
    'not supported (not planned).'
    """
    known = list(known)
    if not in_dataset and isinstance(value, dict) and name in NESTED_SECTIONS:
        return _nested_section(name, value)
    group = _group_of(name, in_dataset=in_dataset)
    if group is not None:
        return group.verdict, group.instead
    elsewhere = _other_place(name, in_dataset=in_dataset)
    guess = nearest(name, known)
    if elsewhere or guess is None:
        return OTHER_NAME, elsewhere or "All keys are listed in docs/reference/config.md."
    return OTHER_NAME, f"Did you mean {guess!r}?"


def unknown_value(key: str, value: Any) -> str:
    """Return what to write instead of a value that other tools have, or nothing when it is simply wrong.

    >>> unknown_value("adapter", "dora")
    'Use `adapter: lora` with `peft_use_dora: true`.'
    """
    for name, verdict, instead in OTHER_VALUES.get(key, ()):
        if value == name:
            return instead if verdict == OTHER_NAME else f"It is {verdict} {instead}"
    return ""


def _nested_section(name: str, section: Mapping[str, Any]) -> tuple[str, str]:
    flat = NESTED_SECTIONS[name]
    pairs = ", ".join(
        f"`{flat.get(key, key)}` (not `{key}`)" if flat.get(key, key) != key else f"`{key}`" for key in section
    )
    what = f"Instead of what it holds, write at the top level: {pairs}." if pairs else "Remove it."
    return "is a nested section of axolotl-rs; keys are flat here.", what


def _other_place(name: str, *, in_dataset: bool) -> str:
    from bedstone.train.config.schema import DatasetConfig, TrainConfig

    if in_dataset and name in TrainConfig.model_fields:
        return "It belongs at the top level, outside the list of data sets."
    if not in_dataset and name in DatasetConfig.model_fields:
        return "It belongs in an entry of `datasets`."
    return ""


def _group_of(name: str, *, in_dataset: bool) -> Group | None:
    exact, prefixes = _index(in_dataset=in_dataset)
    if name in exact:
        return exact[name]
    return next((group for prefix, group in prefixes.items() if name.startswith(prefix)), None)


@cache
def _index(*, in_dataset: bool) -> tuple[dict[str, Group], dict[str, Group]]:
    exact: dict[str, Group] = {}
    prefixes: dict[str, Group] = {}
    groups = AXOLOTL_IN_DATASET + OTHER_IN_DATASET if in_dataset else AXOLOTL_TOP_LEVEL + OTHER_TOP_LEVEL
    for group in groups:
        for name in group.names.split():
            if name.endswith("*"):
                prefixes[name[:-1]] = group
            else:
                exact[name] = group
    return exact, prefixes
