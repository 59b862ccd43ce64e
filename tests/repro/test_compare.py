"""The first difference is named by tensor, place and value; the same bits have none."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from bedstone.core.errors import StorageError
from bedstone.repro.checkpoint import CheckpointStore
from bedstone.repro.compare import Difference, first_difference
from bedstone.repro.tensor_file import _CODES


@pytest.fixture
def compare(tmp_path):
    def run(left, right):
        save_file(left, tmp_path / "left.safetensors")
        save_file(right, tmp_path / "right.safetensors")
        return first_difference(tmp_path / "left.safetensors", tmp_path / "right.safetensors")

    return run


def test_the_same_bits_have_no_difference(compare):
    tensors = {"a": torch.tensor([float("nan"), -0.0]), "b": torch.empty(0), "c": torch.tensor(1)}
    assert compare(tensors, tensors) is None


def test_a_value_is_named_with_its_place(compare):
    left = {"a": torch.ones(2), "b": torch.zeros(3, 4)}
    right = {"a": torch.ones(2), "b": torch.zeros(3, 4)}
    right["b"][1, 2], right["b"][2, 3] = 0.5, -2.0
    found = compare(left, right)
    assert found == Difference("b", "value", 0.0, 0.5, (1, 2), 2, 2.0)
    assert str(found) == "b[1, 2] differs in value: 0.0 against 0.5; values that differ in it: 2, by at most 2.0."


def test_the_sign_of_zero_is_a_difference(compare):
    assert compare({"a": torch.tensor(0.0)}, {"a": torch.tensor(-0.0)}).max_abs == 0.0


def test_a_tensor_of_one_side_is_named(compare):
    left, right = {"a": torch.ones(1), "b": torch.ones(1)}, {"a": torch.ones(1), "c": torch.ones(1)}
    assert str(compare(left, right)) == "b is only in the first."
    assert str(compare(right, left)) == "b is only in the second."


def test_dtype_and_shape_come_before_values(compare):
    assert str(compare({"a": torch.ones(1)}, {"a": torch.ones(1).half()})) == (
        "a differs in dtype: torch.float32 against torch.float16."
    )
    assert str(compare({"a": torch.ones(2)}, {"a": torch.ones(1, 2)})) == "a differs in shape: (2,) against (1, 2)."


@given(st.sampled_from(sorted(_CODES, key=str)), st.data())
@settings(max_examples=80)
def test_every_changed_element_of_every_dtype_is_found(tmp_path_factory, dtype, data):
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    left = torch.zeros(rows, columns, dtype.itemsize, dtype=torch.uint8)
    right = left.clone()
    right[row, column, 0] = 1
    folder = tmp_path_factory.mktemp("compare")
    for name, raw in (("left", left), ("right", right)):
        save_file({"x": raw.reshape(rows, -1).view(dtype)}, folder / name)
    found = first_difference(folder / "left", folder / "right")
    assert (found.what, found.index, found.differing) == ("value", (row, column), 1)
    assert found.left != found.right
    assert str(found).startswith(f"x[{row}, {column}] differs in value: {found.left} against {found.right}; ")


def saved(folder, state):
    return CheckpointStore(folder).save(1, state)


STATE = {
    "model": {"w": torch.ones(2)},
    "optimizer": {"state": {0: torch.ones(2)}},
    "position": {"epoch": 1, "losses": [1.0, 2.0]},
}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "None"),
        (
            {"model": {"w": torch.tensor([1.0, 3.0])}},
            "model.safetensors/w[1] differs in value: 1.0 against 3.0; values that differ in it: 1, by at most 2.0.",
        ),
        ({"ema": {"w": torch.ones(2)}}, "ema.safetensors is only in the second."),
        ({"position": {"epoch": 2, "losses": [1.0, 2.0]}}, "state.json/position.epoch differs in value: 1 against 2."),
        (
            {"position": {"epoch": 1, "losses": [1.0, 2.5]}},
            "state.json/position.losses[1] differs in value: 2.0 against 2.5.",
        ),
        (
            {"position": {"epoch": 1, "losses": [1.0, 2.0], "best": -0.0}},
            "state.json/position.best is only in the second.",
        ),
        ({"position": {"epoch": 1}}, "state.json/position.losses is only in the first."),
        (
            {"position": {"epoch": True, "losses": [1.0, 2.0]}},
            "state.json/position.epoch differs in value: 1 against True.",
        ),
    ],
)
def test_two_checkpoints_are_compared_tensors_first(tmp_path, change, text):
    left, right = saved(tmp_path / "a", STATE), saved(tmp_path / "b", STATE | change)
    assert str(first_difference(left, right)) == text


def test_the_sign_of_zero_is_a_difference_in_the_state_too(tmp_path):
    left, right = saved(tmp_path / "a", {"best": 0.0}), saved(tmp_path / "b", {"best": -0.0})
    assert str(first_difference(left, right)) == "state.json/best differs in value: 0.0 against -0.0."


def test_folders_without_a_state_are_compared_by_their_tensors(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        save_file({"lora_A": torch.ones(2)}, tmp_path / name / "adapter_model.safetensors")
    assert first_difference(tmp_path / "a", tmp_path / "b") is None


def test_what_is_missing_is_named(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "a")
    for pair in ((tmp_path / "a", tmp_path / "no"), (tmp_path / "no", tmp_path / "a")):
        with pytest.raises(StorageError) as caught:
            first_difference(*pair)
        assert str(caught.value) == f"Could not read the tensors at {tmp_path}/no: No such file or directory."


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageError) as caught:
        first_difference(tmp_path / "a", tmp_path / "a")
    assert str(caught.value) == f"The folder {tmp_path}/a holds no .safetensors file."


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"text")
    with pytest.raises(StorageError, match=r"a or .*a is not a safetensors file: "):
        first_difference(tmp_path / "a", tmp_path / "a")
