"""A checkpoint on the disk proves its integrity: any change to any byte of it is found, and said by file."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bedstone.core.errors import InvalidConfigError, UnsupportedError
from bedstone.repro.checkpoint_folder import (
    CheckpointError,
    CheckpointVersionError,
    flatten_state,
    read_folder,
    step_name,
    step_of,
    verify_folder,
    write_folder,
)
from bedstone.repro.fingerprint import fingerprint

STATE = {
    "model": {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2, dtype=torch.bfloat16)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 0.999), "lr": 1e-3}]},
    "position": {"epoch": 1, "batch": 17},
    "best": float("inf"),
}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "step-000040"
    path.mkdir()
    write_folder(path, 40, flatten_state(STATE))
    return path


def reason(folder, **options):
    with pytest.raises(CheckpointError) as caught:
        read_folder(folder, **options)
    assert str(caught.value).startswith(f"The checkpoint {folder} cannot be used: {caught.value.reason}.")
    assert caught.value.path == str(folder)
    return caught.value.reason


def rewrite_index(folder, **changes):
    path = folder / "index.json"
    content = json.loads(path.read_text()) | changes
    content.pop("index_sha256")
    path.write_text(json.dumps(content | {"index_sha256": fingerprint(content)}))


def test_what_was_written_is_read(folder):
    index, state = read_folder(folder)
    assert index.step == 40
    assert list(state) == list(STATE)
    assert torch.equal(state["model"]["layer.weight"], STATE["model"]["layer.weight"])
    assert state["optimizer"]["state"][0]["step"] == 3
    assert state["optimizer"]["param_groups"] == [{"betas": (0.9, 0.999), "lr": 1e-3}]
    assert state["position"] == {"epoch": 1, "batch": 17}
    assert state["best"] == float("inf")


def test_there_is_one_tensor_file_a_key_that_holds_tensors_and_any_tool_reads_it(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert safetensors.torch.load_file(folder / "model.safetensors").keys() == {"layer.weight", "layer.bias"}


def test_the_same_state_makes_the_same_bytes(folder, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    write_folder(again, 40, flatten_state(STATE))
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_changed_byte_is_found(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged") / "step-000040"
    folder.mkdir()
    write_folder(folder, 40, flatten_state(STATE))
    before = read_folder(folder)[0]
    name = data.draw(st.sampled_from(sorted(path.name for path in folder.iterdir())))
    content = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(content)
    if name == "index.json" and index_means_the_same(content, before):
        return  # white space between the words of the index means nothing
    with pytest.raises(CheckpointError, match=f"`{name}`|holds step"):
        verify_folder(folder)


def index_means_the_same(content, before):
    try:
        changed = json.loads(content)
    except ValueError:
        return False
    files = {name: {"bytes": record.bytes, "sha256": record.sha256} for name, record in before.files.items()}
    head = {"format": "bedstone-checkpoint", "version": 1, "step": before.step, "files": files}
    return changed == head | {"index_sha256": fingerprint(head)}


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_any_cut_file_is_found(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut") / "step-000040"
    folder.mkdir()
    write_folder(folder, 40, flatten_state(STATE))
    name = data.draw(st.sampled_from(sorted(path.name for path in folder.iterdir())))
    content = (folder / name).read_bytes().rstrip(b"\n")
    (folder / name).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(CheckpointError):
        verify_folder(folder, hashes=False)


def test_a_changed_file_is_named(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert reason(folder) == "the content of `model.safetensors` has changed (its SHA-256 differs)"
    read_folder(folder, verify=False)  # which is what was asked for


def test_a_short_file_is_named_with_both_lengths(folder):
    path = folder / "model.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    for verify in (True, False):
        assert reason(folder, verify=verify) == f"`model.safetensors` has {size - 1} bytes and was written with {size}"


def test_a_missing_file_is_named(folder):
    (folder / "optimizer.safetensors").unlink()
    assert reason(folder) == "`optimizer.safetensors` is missing"


def test_an_extra_file_is_named(folder):
    (folder / "extra.txt").write_text("")
    assert reason(folder) == "`extra.txt` does not belong to it"


def test_a_missing_index_is_named(folder):
    (folder / "index.json").unlink()
    assert reason(folder) == "`index.json` is missing"


def test_a_missing_folder_is_said(tmp_path):
    assert reason(tmp_path / "step-000001") == "there is no such folder"


def test_a_changed_index_is_found(folder):
    path = folder / "index.json"
    path.write_text(path.read_text().replace('"step": 40', '"step": 41'))
    assert reason(folder) == "the content of `index.json` has changed (its SHA-256 differs)"


def test_a_folder_under_another_steps_name_is_found(folder):
    moved = folder.with_name("step-000050")
    shutil.move(folder, moved)
    assert reason(moved) == "it holds step 40"


def test_a_folder_under_a_name_of_its_own_is_fine(folder):
    moved = folder.with_name("best")
    shutil.move(folder, moved)
    assert read_folder(moved)[0].step == 40


@pytest.mark.parametrize("content", ["[]", '{"format": "other", "version": 1}', '{"format": "bedstone-checkpoint"}'])
def test_another_format_is_said(folder, content):
    (folder / "index.json").write_text(content)
    assert reason(folder) == "`index.json` is not an index of the format 'bedstone-checkpoint'"


def test_an_index_that_is_not_json_is_said(folder):
    (folder / "index.json").write_bytes(b"\x00\x01")
    assert reason(folder).startswith("`index.json` is not an index (JSONDecodeError(")


def test_a_newer_version_is_refused_with_both_versions(folder):
    rewrite_index(folder, version=2)
    with pytest.raises(CheckpointVersionError) as caught:
        read_folder(folder)
    assert str(caught.value) == (
        f"The checkpoint {folder} cannot be used: it has version 2 of the format 'bedstone-checkpoint', and this "
        "program reads version 1. Use the bedstone that wrote it, or a newer one."
    )


def test_a_version_that_never_was_is_refused(folder):
    rewrite_index(folder, version=0)
    assert reason(folder) == "the version 0 of the format 'bedstone-checkpoint' does not exist"


def test_a_file_that_is_whole_and_no_tensor_file_is_said(folder):
    files = json.loads((folder / "index.json").read_text())["files"]
    (folder / "model.safetensors").write_bytes(b"x" * files["model.safetensors"]["bytes"])
    assert reason(folder, verify=False).startswith("a file is not what its name says (")


def test_nothing_is_unpickled(folder):
    (folder / "model.pt").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert reason(folder, verify=False) == "`model.pt` does not belong to it"


@pytest.mark.parametrize("key", ["a/b", "..", ".hidden", "", "-x", "é", "x" * 101, "$"])
def test_a_key_with_tensors_must_be_fit_for_a_file_name(key):
    flatten_state({key: 1})
    with pytest.raises(InvalidConfigError) as caught:
        flatten_state({key: {"w": torch.ones(1)}})
    assert str(caught.value) == (
        f"The key {key!r} of `state` holds tensors, so it names a file: it must be 1 to 100 letters, digits, dots, "
        "dashes and underscores, and not start with a dot or dash."
    )


@pytest.mark.parametrize("state", [[1], {1: 2}, None])
def test_a_state_is_a_dictionary_with_string_keys(state):
    with pytest.raises(InvalidConfigError) as caught:
        flatten_state(state)
    assert str(caught.value) == "`state` must be a dictionary with string keys."


def test_a_tensor_that_cannot_be_written_is_refused_by_name():
    with pytest.raises(UnsupportedError) as caught:
        flatten_state({"model": {"w": torch.empty(1, device="meta")}})
    assert str(caught.value) == "The tensor 'w' of 'model' lies on the device `meta`, so it has no data to write."


def test_any_key_may_hold_plain_values(tmp_path):
    state = {"$tensor": {"$tuple": 1}, "a/b": (1, 2), "": None, "index": 1, "state": torch.ones(1)}
    write_folder(tmp_path, 1, flatten_state(state))
    assert read_folder(tmp_path)[1] == state


@given(st.integers(0, 10**9))
def test_names_of_steps_are_read_back(step):
    assert step_of(Path(step_name(step))) == step
    assert step_of(Path(f"step-0{step:06d}")) is None
