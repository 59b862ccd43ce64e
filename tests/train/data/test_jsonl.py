"""A JSONL file is read line by line, and whatever is wrong is named as `file:line`."""

from __future__ import annotations

import errno
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bedstone.core.errors import InvalidConfigError, StorageError
from bedstone.train.config.schema import DatasetConfig
from bedstone.train.data import DataError, read_jsonl

FIELDS = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=9) | st.lists(st.integers()))


def read(path, **keys):
    return list(read_jsonl(DatasetConfig(type="alpaca", path=str(path), **keys)))


def test_empty_lines_are_skipped_and_counted(jsonl):
    """The number is the one an editor shows."""
    rows = read(jsonl("", {"a": 1}, "  ", "", {"a": 2}))
    assert [(row.fields, row.source) for row in rows] == [({"a": 1}, "rows.jsonl:2"), ({"a": 2}, "rows.jsonl:5")]


@given(st.lists(FIELDS, max_size=5))
@example([{"a": "one\u2028line\x0c\x85"}, {"b": "after it"}])
def test_any_rows_come_back_with_their_line_numbers(rows):
    """Also with separators inside strings, at which text mode would split."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows).encode())
        found = read(path)
    assert [row.fields for row in found] == rows
    assert [row.source for row in found] == [f"{path}:{i}" for i in range(1, len(rows) + 1)]


def test_a_byte_order_mark_and_a_missing_last_newline_are_fine(tmp_path):
    """Windows editors write both."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}')
    assert [row.fields for row in read(path)] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'a': 1}", "rows.jsonl:2 is not JSON: Expecting property name enclosed in double quotes at column 2."),
        ('{"a": 1', "rows.jsonl:2 is not JSON: Expecting ',' delimiter at column 8."),
        (
            "[",
            (
                "rows.jsonl:2 is not JSON: Expecting value at column 2. "
                "Write one JSON object a line; `jq -c '.[]' rows.json > rows.jsonl` converts a JSON list."
            ),
        ),
        (
            '"hi"',
            (
                "rows.jsonl:2 must be a JSON object, but is text ('hi'). "
                "Write one JSON object a line; `jq -c '.[]' rows.json > rows.jsonl` converts a JSON list."
            ),
        ),
    ],
)
def test_a_line_that_is_no_object_is_named(jsonl, line, message):
    """With file and line, and the way out where there is one."""
    name = jsonl({"a": 1}, line)
    with pytest.raises(DataError) as caught:
        read(name)
    assert str(caught.value) == message
    assert caught.value.source == "rows.jsonl:2"


def test_a_line_that_is_not_utf8_is_named(tmp_path, monkeypatch):
    """Byte and position too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_bytes('{"a": "é"}\n'.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        read("rows.jsonl")
    assert str(caught.value) == "rows.jsonl:1 is not UTF-8: byte 8 of the line is 0xe9. Save the file as UTF-8."


def test_a_missing_file_suggests_its_neighbour(jsonl):
    """A typing mistake is the usual reason."""
    jsonl({"a": 1}, name="train.jsonl")
    with pytest.raises(StorageError) as caught:
        read("trian.jsonl")
    assert str(caught.value) == "The data set trian.jsonl does not exist. Did you mean train.jsonl?"
    assert (caught.value.errno, caught.value.path) == (errno.ENOENT, "trian.jsonl")


def test_a_missing_file_says_where_relative_paths_start(tmp_path, monkeypatch):
    """The second usual reason."""
    monkeypatch.chdir(tmp_path)
    for path, nor in (("data.jsonl", ""), ("no/data.jsonl", ", nor does its folder")):
        with pytest.raises(StorageError) as caught:
            read(path)
        assert str(caught.value) == f"The data set {path} does not exist{nor}. Relative paths start at {tmp_path}."


def test_a_folder_is_not_a_data_set(tmp_path):
    """The operating system's own words are kept."""
    with pytest.raises(StorageError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"Could not read the data set at {tmp_path}: Is a directory."


def test_refuses_a_missing_path_and_a_part_of_a_file():
    """Both before the file is opened."""
    with pytest.raises(InvalidConfigError) as caught:
        read("")
    assert str(caught.value) == "`path` of the data set of type 'alpaca' is missing. Set it to a JSONL file."
    with pytest.raises(InvalidConfigError) as caught:
        read("rows.jsonl", split="test")
    assert str(caught.value) == (
        "`split` (='test') cannot be chosen: the file rows.jsonl has no parts. Leave `split` out."
    )
