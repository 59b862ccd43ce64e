"""Equal values have equal fingerprints, different ones differ, and what has no single JSON form is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.errors import InvalidConfigError
from bedstone.repro.fingerprint import canonical_json, fingerprint

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6)


@given(values)
def test_canonical_json_loses_nothing(value):
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), values))
def test_order_of_keys_does_not_matter(value):
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)


def test_different_values_differ():
    values = [1, 1.0, True, "1", [1], {"1": 1}, None, "", [], {}, 0, False, [[]], {"a": 1, "b": 2}, {"a": 2, "b": 1}]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_a_fingerprint_is_the_same_in_every_version():
    expected = "43258cff783fe7036d8a43033f830adfc60ec037382473548ac742b888292777"
    assert fingerprint({"b": 2, "a": 1}) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "`value` (=nan) must be finite to have one JSON form."),
        ({"a": [0, float("inf")]}, "`value.a[1]` (=inf) must be finite to have one JSON form."),
        ({"a": {1: 2}}, "A key of `value.a` (=1) must be a string to have one JSON form."),
        ([{1, 2}], "`value[0]` is of type set, which has no JSON form."),
        (b"x", "`value` is of type bytes, which has no JSON form."),
    ],
)
def test_what_has_no_single_form_is_refused_with_its_place(value, message):
    with pytest.raises(InvalidConfigError) as caught:
        fingerprint(value)
    assert str(caught.value) == message
