"""Values of any kind as strict JSON: what logs, event files and errors write."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast


def json_value(value: Any) -> Any:
    """Return `value` as strict JSON can hold it: numbers stay numbers, what JSON lacks becomes text.

    A tensor or NumPy value of one element counts as its number; NaN and the infinities, which JSON lacks, do not.

    >>> import torch
    >>> json_value({"shape": (2, 3), "loss": float("nan"), "step": torch.tensor(7), "dtype": torch.int8})
    {'shape': [2, 3], 'loss': 'NaN', 'step': 7, 'dtype': 'torch.int8'}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        pairs = cast("Mapping[Any, Any]", value).items()
        return {str(name): json_value(item) for name, item in pairs}
    if isinstance(value, (tuple, list)):
        return [json_value(item) for item in cast("list[Any]", value)]
    number = scalar(value)
    return str(value) if number is value else json_value(number)


def scalar(value: Any) -> Any:
    """Return a tensor or NumPy value of one element as Python's own number; anything else as it is.

    `float(tensor)` would warn of gradients, and `float(array)` refuse an array of shape (1,); both are numbers to a log.

    >>> import torch
    >>> scalar(torch.ones(1, requires_grad=True)), scalar("text")
    (1.0, 'text')
    """
    item = getattr(value, "item", None)
    try:
        found = value if item is None else item()
    except (TypeError, ValueError, RuntimeError):  # several elements, or somebody else's `item`
        return value
    return found if isinstance(found, (int, float, complex)) else value


def json_line(record: Mapping[str, Any]) -> str:
    r"""Return a record as one line of strict JSON, which any reader and any UTF-8 file takes.

    >>> json_line({"event": "metric", "loss": float("inf"), "file": "a\udcff"})
    '{"event": "metric", "loss": "Infinity", "file": "a\\udcff"}'
    """
    text = json.dumps(json_value(record), ensure_ascii=False, allow_nan=False)
    # A lone surrogate (from an undecodable file name) has no UTF-8; its backslash form is its JSON escape.
    return text.encode("utf-8", "backslashreplace").decode()
