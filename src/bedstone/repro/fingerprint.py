"""One SHA-256 for one value: JSON with sorted keys and no spaces, so that equal settings have equal fingerprints.

Python's `hash` differs between processes and `repr` between versions; canonical JSON does neither. What has no single
JSON form (NaN, keys that are not strings, objects) is refused, since two different values must never look the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from bedstone.core.errors import InvalidConfigError


def canonical_json(value: Any) -> str:
    """Return the one JSON text of `value`: keys sorted, no spaces, ASCII only; a tuple reads as a list.

    Args:
        value: Nested dictionaries with string keys, lists, tuples, strings, integers, finite floats, booleans, `None`.

    Raises:
        InvalidConfigError: Some part is of another type, a key is not a string, or a number is not finite.

    >>> canonical_json({"b": (1, 2.5), "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    _check(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, 64 hexadecimal digits.

    Args:
        value: As for `canonical_json`.

    Raises:
        InvalidConfigError: As for `canonical_json`.

    >>> fingerprint({"lr": 0.1, "seed": 42}) == fingerprint({"seed": 42, "lr": 0.1})
    True
    >>> fingerprint([])[:16]
    '4f53cda18c2baa0c'
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _check(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidConfigError(
                    f"A key of `{path}` (={key!r}) must be a string to have one JSON form.", argument=path, value=key
                )
            _check(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            _check(item, f"{path}[{place}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidConfigError(
            f"`{path}` (={value}) must be finite to have one JSON form.", argument=path, value=value
        )
    elif value is not None and not isinstance(value, (str, int, float)):
        raise InvalidConfigError(
            f"`{path}` is of type {type(value).__name__}, which has no JSON form.", argument=path, value=value
        )
