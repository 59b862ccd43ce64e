"""Data errors are `CoreError`s and `ValueError`s that keep the place they are about."""

from __future__ import annotations

import copy
import pickle

from bedstone.core.errors import CoreError
from bedstone.train.data import DataError


def test_keeps_its_facts_when_copied_and_pickled():
    """A data worker hands it to the parent process whole."""
    error = DataError("rows.jsonl:3 is odd.", source="rows.jsonl:3", field="output", remedy="Remove it.")
    for same in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert isinstance(same, (CoreError, ValueError))
        assert str(same) == "rows.jsonl:3 is odd. Remove it."
        assert same.context == {"source": "rows.jsonl:3", "field": "output"}
        assert same.to_dict()["code"] == "data"
