"""A state taken apart and put together is the same state: every type, every bit."""

import json
import math
import struct
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bedstone.core.errors import InvalidConfigError
from bedstone.repro.files import json_bytes
from bedstone.repro.tree import FlatTree, flatten, unflatten

any_float = st.floats() | st.binary(min_size=8, max_size=8).map(lambda raw: struct.unpack(">d", raw)[0])
tensors = st.sampled_from(
    [torch.ones(2, 3), torch.tensor(1.5), torch.empty(0), torch.tensor([True]), torch.arange(4, dtype=torch.int8)]
)
big = st.integers(-(2**200), 2**200)
text = st.text(st.characters()) | st.sampled_from(["$", "$tensor", "$dict", "__metadata__", "", "a.b", "0"])
leaves = st.none() | st.booleans() | st.integers() | big | any_float | text | tensors
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(text | st.integers(), inner, max_size=4)
    ),
    max_leaves=25,
)


REMEDY = "Use tensors, dictionaries, lists, tuples, strings, numbers, booleans and None."


def same(left, right):
    """Equal in type and bits, order of keys included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return same(list(left), list(right)) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return struct.pack(">d", left) == struct.pack(">d", right)
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
    return left == right


def round_trip(tree):
    flat = flatten(tree)
    return unflatten(FlatTree(json.loads(json_bytes(flat.json)), flat.tensors))


@given(trees)
@settings(max_examples=300)
def test_every_tree_comes_back(tree):
    assert same(round_trip(tree), tree)


@given(trees)
def test_tensors_never_end_up_in_the_json_and_names_are_fit_for_a_file(tree):
    flat = flatten(tree)
    for name in flat.tensors:
        assert name != "__metadata__"
        name.encode("utf-8")
    json_bytes(flat.json)


def test_integer_keys_and_tuples_of_an_optimizer_come_back():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    for _ in range(3):
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        schedule.step()
    for state in (optimizer.state_dict(), schedule.state_dict()):
        back = round_trip(state)
        assert same(back, state)
    back = round_trip(optimizer.state_dict())
    assert list(back["state"]) == [0, 1, 2, 3]
    assert back["param_groups"][0]["betas"] == (0.9, 0.999)
    optimizer.load_state_dict(back)


def test_names_are_the_paths():
    flat = flatten({"layers": [{"weight": torch.ones(1)}], "a.b": torch.ones(1), "a": {"b": torch.ones(1)}})
    assert list(flat.tensors) == ["layers.0.weight", "a.b", "a.b#2"]
    assert list(flatten(torch.ones(1), root="bias").tensors) == ["bias"]


def test_a_name_with_a_meaning_in_the_file_is_not_taken():
    assert list(flatten({"__metadata__": torch.ones(1)}).tensors) == ["__metadata__#2"]


def test_tensors_are_not_copied():
    tensor = torch.ones(3)
    assert flatten({"a": tensor}).tensors["a"] is tensor


class Point(NamedTuple):
    x: int
    y: float


def test_subclasses_come_back_as_the_plain_type():
    back = round_trip([OrderedDict(a=1), Point(1, 2.0), torch.Size([3, 4]), torch.nn.Parameter(torch.ones(2))])
    assert [type(item) for item in back] == [dict, tuple, tuple, torch.nn.Parameter]
    assert back[:3] == [{"a": 1}, (1, 2.0), (3, 4)]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"a": [1, {2, 3}]},
            f"`state.a.1` is of type set, which a checkpoint cannot hold. {REMEDY}",
        ),
        (
            b"x",
            f"`state` is of type bytes, which a checkpoint cannot hold. {REMEDY}",
        ),
        ({"a": {1.5: 0}}, "`state.a` has the key 1.5, which is neither a string nor an integer."),
        ({True: 0}, "`state` has the key True, which is neither a string nor an integer."),
    ],
)
def test_what_it_cannot_hold_is_named_by_its_path(tree, message):
    with pytest.raises(InvalidConfigError) as caught:
        flatten(tree)
    assert str(caught.value) == message


def test_a_tree_that_contains_itself_is_refused():
    loop: dict = {}
    loop["again"] = loop
    with pytest.raises(InvalidConfigError) as caught:
        flatten(loop)
    assert str(caught.value) == (
        "`state.again.again.again...` is nested deeper than 200 levels. Does it contain itself?"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"$tensor": "w"}, "`$tensor` with 'w' is not part of a flattened tree."),
        ({"$code": "x"}, "`$code` with 'x' is not part of a flattened tree."),
        ({"$int": "zz"}, "`$int` with 'zz' is not part of a flattened tree."),
        ({"$float": "00"}, "`$float` with '00' is not part of a flattened tree."),
        ({"$dict": [[[], 1]]}, "`$dict` with '[[[], 1]]' is not part of a flattened tree."),
        ({"$tuple": [{"$x": 1}]}, "`$x` with '1' is not part of a flattened tree."),
        ({"a": 1, "$int": "0x1"}, "`$int` with '0x1' is not part of a flattened tree."),
    ],
)
def test_json_that_flatten_did_not_make_is_refused(content, message):
    with pytest.raises(InvalidConfigError) as caught:
        unflatten(FlatTree(content))
    assert str(caught.value) == message


def test_a_nan_keeps_its_payload():
    odd = struct.unpack(">d", bytes.fromhex("fff8000000abcdef"))[0]
    assert math.isnan(odd)
    assert struct.pack(">d", round_trip(odd)).hex() == "fff8000000abcdef"
