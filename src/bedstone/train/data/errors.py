"""What can be wrong with training data; every message names the row as `file:line`."""

from __future__ import annotations

from typing import Any

from bedstone.core.errors import CoreError


class DataError(CoreError, ValueError):
    """A row, or a whole data set, that cannot be trained on.

    Args:
        message: One or more full sentences that name the row.
        source: The row as `file:line`, or the data set; empty when the failure has no place.
        field: The field concerned, or empty.
        remedy: What to do next.

    >>> raise DataError("rows.jsonl:3 has no field 'output'.", source="rows.jsonl:3", field="output")
    Traceback (most recent call last):
    bedstone.train.data.errors.DataError: rows.jsonl:3 has no field 'output'.
    """

    code = "data"
    source: str
    field: str

    def __init__(self, message: str, *, source: str = "", field: str = "", remedy: str = "", **facts: Any) -> None:
        super().__init__(message, remedy=remedy, source=source, field=field, **facts)
