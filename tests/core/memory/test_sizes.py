"""Sizes are read and shown exactly, and what could mean two things is refused."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.errors import InvalidConfigError
from bedstone.core.memory import checked_shape, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("1024", 1024), ("17 B", 17), ("3 bytes", 3), ("1 byte", 1), ("1 kB", 1000), ("1 KiB", 1024),
        ("8 GiB", 8 * 2**30), ("8GB", 8 * 10**9), ("8gib", 8 * 2**30), (" 1.5 MiB ", 3 * 2**19), ("0.5 TB", 5 * 10**11),
        ("2 PiB", 2**51), ("1 EiB", 2**60), ("1.1 GiB", 1181116006), ("99999999999 EiB", 99999999999 * 2**60),
    ],
)  # fmt: skip
def test_sizes_are_read_exactly(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["8G", "8 K", "GiB", "", "-1 GiB", "nan", "inf GiB", "1e9", "1,000", "8 GiBs", "٣ GB", "1..5 GB"]
)
def test_unclear_sizes_are_refused_with_two_examples(text):
    with pytest.raises(InvalidConfigError) as raised:
        parse_bytes(text)
    assert str(raised.value) == (
        f"`size` (={text!r}) must be a number of at least 0 and a unit. "
        "Write, for example, '8 GiB' (8 x 1024^3 bytes) or '8 GB' (8 x 1000^3 bytes)."
    )


@pytest.mark.parametrize("number", [-1, True, 1.5, None])
def test_a_size_that_is_not_a_whole_number_is_refused(number):
    with pytest.raises(InvalidConfigError) as raised:
        parse_bytes(number)
    assert str(raised.value) == f"`size` (={number!r}) must be a whole number of at least 0."


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (2**20 - 1, "1 MiB"), (2**30, "1 GiB"),
        (1_207_959_552, "1.13 GiB"), (10 * 2**30, "10 GiB"), (2**80, "1048576 EiB"),
    ],
)  # fmt: skip
def test_sizes_are_shown_in_the_largest_fitting_unit(size, text):
    assert format_bytes(size) == text


@given(st.integers(0, 2**70))
def test_what_is_shown_can_be_read_back_within_half_a_hundredth(size):
    assert abs(Fraction(parse_bytes(format_bytes(size)) - size)) <= max(1, Fraction(size, 200))


@given(st.integers(0, 1023))
def test_small_sizes_are_shown_exactly(size):
    assert parse_bytes(format_bytes(size)) == size


def test_a_shape_may_come_as_any_sequence_of_whole_numbers():
    numpy = pytest.importorskip("numpy")
    assert checked_shape([numpy.int32(2), 3]) == (2, 3)
    assert checked_shape(()) == ()


def test_a_number_is_no_shape():
    with pytest.raises(InvalidConfigError) as raised:
        checked_shape(5)
    assert str(raised.value) == (
        "`shape` (=5) must be a sequence of whole numbers. Write (n,) for one dimension and () for a single number."
    )
