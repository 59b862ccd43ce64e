"""Paths of values: one spelling for lines, problems and overrides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bedstone.train.config.key_path import join_path, parents, split_path

_NAME = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)


@given(_NAME, st.lists(_NAME | st.integers(0, 99), max_size=4))
def test_splitting_undoes_joining(first, rest):
    """In brackets and with dots alike."""
    path = (first, *rest)
    assert split_path(join_path(path)) == path
    assert split_path(".".join(map(str, path))) == path


@given(_NAME, st.lists(_NAME | st.integers(0, 99), max_size=4))
def test_the_parents_end_at_the_top_level_key(first, rest):
    """One for each part, innermost first."""
    found = parents(join_path((first, *rest)))
    assert (len(found), found[-1]) == (len(rest) + 1, first)
