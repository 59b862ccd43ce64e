"""`--set key=value`: values from the command line, laid over those of the file.

The value is read as YAML with the same rules as in the file, so `--set learning_rate=5e-4` is a number and
`--set lora_target_modules=[q_proj,v_proj]` a list. An empty value takes the key away, so that its default holds again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

from bedstone.core.errors import Problem
from bedstone.train.config.key_path import join_path, split_path
from bedstone.train.config.yaml_lines import read_value

Overrides = Mapping[str, str] | Sequence[str]


class _CannotSetError(Exception):
    """Why an override cannot be laid over the values; becomes a `Problem`."""


def apply_overrides(values: dict[str, Any], overrides: Overrides) -> tuple[dict[str, Any], list[str], list[Problem]]:
    """Return a copy of the values with the overrides laid over them, the paths that were set, and what was wrong.

    Args:
        values: What the file says; not changed.
        overrides: `key=value` texts, the later winning; or a mapping of key to value text.

    >>> apply_overrides({"datasets": [{"type": "alpaca"}]}, ["datasets.0.limit=8", "seed=7"])[:2]
    ({'datasets': [{'type': 'alpaca', 'limit': 8}], 'seed': 7}, ['datasets[0].limit', 'seed'])
    """
    values, changed, problems = deepcopy(values), [], []
    for key, text in _pairs(overrides):
        path = join_path(split_path(key))
        try:
            _set(values, key, text)
        except _CannotSetError as error:
            problems.append(Problem(path, str(error), text))
        else:
            changed.append(path)
    return values, changed, problems


def _pairs(overrides: Overrides) -> list[tuple[str, str | None]]:
    if isinstance(overrides, Mapping):
        return list(overrides.items())
    split = [text.partition("=") for text in overrides]
    return [(key.strip(), value if equals else None) for key, equals, value in split]


def _set(values: dict[str, Any], key: str, text: str | None) -> None:
    if text is None or not key:
        raise _CannotSetError("is no override: write key=value, for example lora_r=16.")
    try:
        value = read_value(text)
    except ValueError as error:
        raise _CannotSetError(f"{error} The text was {text!r}.") from None
    path = split_path(key)
    place: Any = values
    for part, following in pairwise(path):
        place = _entry(place, part, [] if isinstance(following, int) else {})
    if value is None:
        _remove(place, path[-1])
    else:
        _assign(place, path[-1], value)


def _entry(place: Any, part: str | int, empty: Any) -> Any:
    """Return the mapping or list at `part`, made when there is none."""
    if isinstance(place, dict):
        part = str(part)
        missing = place.get(part) is None
    else:
        missing = part == _length(place, part)
    if missing:
        _assign(place, part, empty)
    return place[part]


def _assign(place: Any, part: str | int, value: Any) -> None:
    if isinstance(place, dict):
        place[str(part)] = value
    elif part == _length(place, part):
        place.append(value)
    else:
        place[part] = value


def _remove(place: Any, part: str | int) -> None:
    if isinstance(place, dict):
        place.pop(str(part), None)
    elif part == _length(place, part):
        raise _CannotSetError(f"cannot be taken away: the list has {len(place)} entries, counted from 0.")
    else:
        del place[part]


def _length(place: Any, part: str | int) -> int:
    """Return the length of a list in which `part` is an entry or the place after the last one."""
    if not isinstance(place, list):
        raise _CannotSetError(f"cannot be set: what holds {part!r} is a single value, not a mapping or a list.")
    if not isinstance(part, int):
        raise _CannotSetError(f"cannot be set: {part!r} must be the number of an entry, since a list holds it.")
    if part > len(place):
        raise _CannotSetError(f"cannot be set: the list has {len(place)} entries, counted from 0.")
    return len(place)
