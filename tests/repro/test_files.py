"""Files are there whole or not at all, hashes are taken while writing, and a full disk is seen before it is hit."""

import errno
import hashlib
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedstone.core.errors import InvalidConfigError, StorageError
from bedstone.repro.files import (
    FileRecord,
    check_free_space,
    exchange,
    json_bytes,
    make_folder,
    remove,
    sha256_file,
    write_json_atomic,
    write_new_file,
)


def names(folder):
    """The names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


any_text = st.text(st.characters())  # lone surrogates too


@given(st.lists(st.binary(max_size=100)))
@settings(max_examples=30)
def test_the_record_of_a_written_file_is_its_content(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("files") / "a"
    content = b"".join(pieces)
    assert write_new_file(path, pieces) == FileRecord(len(content), hashlib.sha256(content).hexdigest())
    assert path.read_bytes() == content
    assert sha256_file(path) == hashlib.sha256(content).hexdigest()


def test_a_new_file_never_replaces_one(tmp_path):
    write_new_file(tmp_path / "a", [b"first"])
    with pytest.raises(FileExistsError):
        write_new_file(tmp_path / "a", [b"second"])
    assert (tmp_path / "a").read_bytes() == b"first"


def test_the_hash_of_a_missing_file_names_it(tmp_path):
    with pytest.raises(StorageError) as caught:
        sha256_file(tmp_path / "a")
    assert str(caught.value) == f"Could not read the file at {tmp_path}/a: No such file or directory."
    assert caught.value.errno == errno.ENOENT


@given(st.recursive(any_text | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(any_text, inner)))
def test_json_keeps_every_python_string(value):
    assert json.loads(json_bytes(value).decode("utf-8")) == value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (math.nan, "Out of range float values are not JSON compliant: nan"),
        ({1j}, "Object of type set is not JSON serializable"),
    ],
)
def test_what_has_no_json_form_is_refused_and_the_earlier_file_stays(tmp_path, value, why):
    write_json_atomic(tmp_path / "a.json", 1)
    with pytest.raises(InvalidConfigError) as caught:
        write_json_atomic(tmp_path / "a.json", value)
    assert str(caught.value) == f"The value has no JSON form: {why}."
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_json_replaces_the_earlier_file(tmp_path):
    write_json_atomic(tmp_path / "a.json", {"b": 1})
    write_json_atomic(tmp_path / "a.json", {"c": "ü"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "c": "ü"\n}\n'
    assert names(tmp_path) == ["a.json"]


def test_json_that_cannot_be_written_leaves_nothing(tmp_path, run_python):
    script = """
import resource, sys
from bedstone.repro.files import write_json_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_json_atomic(sys.argv[1], ["x" * 2000])
except OSError as error:
    print(type(error).__name__, error)
"""
    write_json_atomic(tmp_path / "a.json", 1)
    printed = run_python(script, tmp_path / "a.json")
    assert printed == f"StorageError Could not write the file at {tmp_path}/a.json: File too large.\n"
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_too_little_free_space_says_both_numbers(tmp_path):
    check_free_space(tmp_path, 1, doing="save step 1")
    with pytest.raises(StorageError) as caught:
        check_free_space(tmp_path, 2**70, doing="save step 1")
    free = caught.value.context["free_bytes"]
    assert str(caught.value) == (
        f"Could not save step 1 at {tmp_path}: 1,180,591,620,717,411,303,424 bytes are needed and {free:,} are free. "
        "Free some space, or keep fewer checkpoints."
    )
    assert caught.value.errno == errno.ENOSPC


def test_exchange_swaps_two_full_folders(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path / "a") == ["b"]
    assert names(tmp_path / "b") == ["a"]


def test_exchange_with_nothing_is_an_error(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "b")


def test_folders_are_made_with_their_parents(tmp_path):
    for _ in range(2):
        make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_remove_takes_folders_files_links_and_nothing(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "inside").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "file").write_text("")
    make_folder(tmp_path / "folder" / "inner")
    for name in ("link", "file", "folder", "absent"):
        remove(tmp_path / name)
    assert names(tmp_path) == ["kept"]
    assert names(tmp_path / "kept") == ["inside"]


@pytest.mark.parametrize("name", ["file/x.json", "a" * 250])
def test_a_path_that_cannot_be_is_a_storage_error(tmp_path, name):
    """Cleaning up after the failure must not fail in a way of its own."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Could not write the file at"):
        write_json_atomic(tmp_path / name, {})
