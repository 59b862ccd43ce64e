"""YAML for configs: every key has its line, every trap of YAML is named, and nothing is ever raised."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bedstone.train.config.yaml_lines import EXPONENT_NUMBER, read_document, read_value


def told(text: str) -> list[tuple[str, int | None]]:
    """What is said of a text, and at which lines."""
    return [(str(problem), problem.line) for problem in read_document(text).problems]


def test_every_key_and_entry_has_its_line():
    """Nested mappings and list entries included, block and flow style alike."""
    document = read_document("a: 1\n\nb:\n  - c: 2\n    d: 3\n  - {e: 4}\n")
    assert document.values == {"a": 1, "b": [{"c": 2, "d": 3}, {"e": 4}]}
    assert document.lines == {"a": 1, "b": 3, "b[0]": 4, "b[0].c": 4, "b[0].d": 5, "b[1]": 6, "b[1].e": 6}


@pytest.mark.parametrize("text", ["5e-4", "5E-4", "5.0e-4", "+5e-04", ".5e-3"])
def test_numbers_with_an_exponent_are_numbers(text):
    """YAML 1.1 reads the first of these as text; a config means the number."""
    assert read_value(text) == pytest.approx(5e-4)


@pytest.mark.parametrize("text", ["5e-4x", "e5", "'5e-4'", "1e", "v1e3"])
def test_what_only_looks_like_an_exponent_stays_text(text):
    """The wider number form takes no text away."""
    assert isinstance(read_value(text), str)


def test_a_key_given_twice_is_named_with_both_lines():
    """PyYAML alone takes the last one in silence."""
    assert told("a: 1\nb: 2\na: 3") == [("`a` given twice, first on line 1.", 3)]
    assert read_document("a: 1\nb: 2\na: 3").values == {"a": 1, "b": 2}
    assert told("x: {a: 1, a: 1}") == [("`x.a` given twice, first on line 1.", 1)]


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "is empty. A config has at least base_model and datasets.", None),
        ("# nothing", "is empty. A config has at least base_model and datasets.", None),
        ("\n- a", "must be a mapping of keys to values, not a list.", 2),
        ("word", "must be a mapping of keys to values, not a single value.", 1),
        ("a: b: c", "is not YAML: mapping values are not allowed here.", 1),
        ("a: 1\n\tb: 2", "is not YAML: found character '\\t' that cannot start any token.", 2),
        ("a: 1\n---\nb: 2", "is not YAML: but found another document.", 2),
        ("a: \x00", "is not YAML: unacceptable character #x0000: special characters are not allowed.", None),
        ("a: &x [*x]", "is not YAML: aliases are not allowed; write the value out.", 1),
        ("a: &x 1\nb: *x", "is not YAML: aliases are not allowed; write the value out.", 2),
        ("a: " + "[" * 3000, "is not a config: its lists or mappings are nested hundreds deep.", None),
    ],
)
def test_a_text_that_is_no_config_has_one_problem_and_no_values(text, message, line):
    """The sentence says what was found, the line where."""
    assert told(text) == [(message, line)]
    assert read_document(text).values is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 2024-13-45", "`a` cannot be read as a YAML value: '2024-13-45'. Put it in quotes."),
        ("a: !odd x", "`a` cannot be read as a YAML value: 'x'. Put it in quotes."),
        ("a: !!set {x}", "`a` has the tag tag:yaml.org,2002:set; only plain YAML values are read."),
        ("a: {? [x] : y}", "`a` has a list as a key; keys are words."),
        (
            "a: 010",
            (
                "`a` is 010, which YAML takes for a number of base 8 or 60. "
                "Write it without the leading zero or the colon, or put it in quotes."
            ),
        ),
        (
            "a: 1:30",
            (
                "`a` is 1:30, which YAML takes for a number of base 8 or 60. "
                "Write it without the leading zero or the colon, or put it in quotes."
            ),
        ),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(text, message):
    """The rest of the document is still read."""
    assert told(f"{text}\nb: 1") == [(message, 1)]
    assert (read_document(f"{text}\nb: 1").values or {})["b"] == 1


def test_no_object_is_ever_built(tmp_path):
    """A tag that would call a function is refused, and the function is not called."""
    file = tmp_path / "made"
    text = f"a: !!python/object/apply:pathlib.Path.touch ['{file}']"
    assert told(text) == [
        (
            "`a` has the tag tag:yaml.org,2002:python/object/apply:pathlib.Path.touch; only plain YAML values are read.",
            1,
        )
    ]
    assert not file.exists()


def test_a_key_is_the_text_as_written():
    """YAML would make True, 1 and None of these."""
    assert read_document("on: 1\n1: 2\nnull: 3").values == {"on": 1, "1": 2, "null": 3}


def test_one_value_is_read_like_the_value_of_a_key():
    """Text, lists and nothing; more than one value is refused."""
    assert [read_value(text) for text in ("a b", "[a, 1]", "{a: 1}", "", "# no")] == [
        "a b",
        ["a", 1],
        {"a": 1},
        None,
        None,
    ]
    with pytest.raises(ValueError, match=r"^is more than one value\.$"):
        read_value("1\nother: 2")


@given(st.text(max_size=80))
def test_any_text_is_answered_without_an_exception(text):
    """Values or problems, never neither."""
    document = read_document(text)
    assert document.values is not None or document.problems


# PyYAML writes the text "5e-4" without quotes, since YAML 1.1 has no such number.
_WORDS = st.text(max_size=8).filter(lambda text: not EXPONENT_NUMBER.match(text))
_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), _PLAIN, min_size=1))
def test_reads_what_yaml_writes(values):
    """PyYAML is the independent oracle: what it writes is read back, keys as text."""

    class NoAliases(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

    document = read_document(yaml.dump(values, Dumper=NoAliases))
    assert (document.values, document.problems) == (values, ())
