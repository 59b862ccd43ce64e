"""Packed weights become plain tensors and a description, and come back bit for bit; what is damaged is refused by name."""

import json

import pytest
import torch

import bedstone as bs
from bedstone import quant
from bedstone.core.errors import UnknownNameError
from bedstone.quant.formats import (
    FormatVersionError,
    WeightFormatError,
    flatten_state_dict,
    unflatten_state_dict,
)
from bedstone.quant.formats.flat import METADATA_KEY

SCHEMES = [
    quant.NF4(),
    quant.NF4(block_size=128, double_quant=True),
    quant.FP4(block_size=32),
    quant.Int8(),
    quant.Int8(granularity="block", block_size=32),
    quant.FP8(),
    quant.FP8(granularity="tensor", format="e5m2"),
    quant.Ternary(),
    quant.Ternary(granularity="row"),
    quant.Ternary(granularity="block", block_size=256),
]


def _same_bytes(left: torch.Tensor, right: torch.Tensor) -> bool:
    """float8 has no comparison of its own; as float32 each of its values is another one."""
    return left.dtype == right.dtype and torch.equal(left.float(), right.float())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("shape", [(8, 64), (5, 7), (0, 4), (3,)], ids=str)
def test_every_scheme_and_shape_comes_back(scheme, shape):
    """Scheme, shape, dtype and every byte of every part are the same after flattening and back."""
    packed = scheme.quantize(torch.randn(shape, dtype=torch.bfloat16))
    tensors, metadata = flatten_state_dict({"a.weight": packed, "a.bias": torch.ones(2)})
    back = unflatten_state_dict(tensors, json.loads(json.dumps(metadata)))
    assert list(back) == ["a.weight", "a.bias"]
    again = back["a.weight"]
    assert isinstance(again, quant.QuantizedTensor)
    assert (again.scheme, again.shape, again.dtype) == (packed.scheme, packed.shape, packed.dtype)
    assert all(_same_bytes(again.parts[name], part) for name, part in packed.parts.items())
    assert torch.equal(again.dequantize(), packed.dequantize())


def test_parts_share_memory():
    """Nothing is copied: the plain tensors are the parts themselves."""
    packed = bs.quantize(torch.randn(8, 64), "nf4")
    tensors, metadata = flatten_state_dict({"w": packed})
    assert tensors["w.packed"].data_ptr() == packed.parts["packed"].data_ptr()
    again = unflatten_state_dict(tensors, metadata)["w"]
    assert again.parts["packed"].data_ptr() == packed.parts["packed"].data_ptr()


def test_metadata_of_others_are_left_alone():
    """Without a description of ours every tensor comes back as it was."""
    state = {"w.packed": torch.ones(2)}
    assert unflatten_state_dict(state, {"format": "pt"}) == state
    assert unflatten_state_dict(state, None) == state


def _flat() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    return flatten_state_dict({"a.weight": bs.quantize(torch.ones(8, 64), "nf4")})


def _described(**changes) -> dict[str, str]:
    description = json.loads(_flat()[1][METADATA_KEY])
    description["weights"]["a.weight"].update(changes)
    return {METADATA_KEY: json.dumps(description)}


def test_a_newer_version_is_refused_by_version():
    """The message names both versions and says to install a newer bedstone."""
    tensors, _ = _flat()
    with pytest.raises(FormatVersionError) as caught:
        unflatten_state_dict(tensors, {METADATA_KEY: json.dumps({"version": 7, "something": "new"})})
    assert str(caught.value) == (
        "The packed weights are of format version 7, and this bedstone reads up to version 1. Install a newer bedstone."
    )
    assert (caught.value.version, caught.value.newest) == (7, 1)


def test_a_missing_part_is_named():
    """The weight and its part are told."""
    tensors, metadata = _flat()
    del tensors["a.weight.absmax"]
    with pytest.raises(WeightFormatError) as caught:
        unflatten_state_dict(tensors, metadata)
    assert str(caught.value) == (
        "The part 'absmax' of the packed weight 'a.weight' is missing. "
        "The file or state dict is damaged or incomplete; get it again."
    )
    assert caught.value.weight == "a.weight"


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [(torch.ones(7), "float32 (7,)"), (torch.ones(8, dtype=torch.float64), "float64 (8,)")],
    ids=["shape", "dtype"],
)
def test_a_part_of_another_shape_or_dtype_is_refused(wrong, shown):
    """What was found and what the scheme has stand side by side."""
    tensors, metadata = _flat()
    tensors["a.weight.absmax"] = wrong
    with pytest.raises(WeightFormatError) as caught:
        unflatten_state_dict(tensors, metadata)
    assert str(caught.value).startswith(
        f"The part 'absmax' of the packed weight 'a.weight' is {shown}, but nf4 of shape (8, 64) has float32 (8,)."
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": "large"}, "cannot be read"),
        ({"shape": [-1, 64]}, "cannot be read"),
        ({"dtype": "float17"}, "cannot be read"),
        ({"scheme": {"scheme": "nf4", "block_size": 48}}, "cannot be read"),
        ({"scheme": {"scheme": "nf4", "colour": "red"}}, "cannot be read"),
        ({"scheme": None}, "cannot be read"),
    ],
)
def test_a_damaged_description_is_refused(changes, said):
    """A value that cannot be is an error that names the weight."""
    tensors, _ = _flat()
    with pytest.raises(WeightFormatError, match=r"a\.weight") as caught:
        unflatten_state_dict(tensors, _described(**changes))
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"version": 1}', '{"version": "1", "weights": {}}', "null"])
def test_a_description_that_is_none_is_refused(text):
    """Damaged JSON is told as such, not as a KeyError."""
    with pytest.raises(WeightFormatError, match=r"bedstone\.packed"):
        unflatten_state_dict({}, {METADATA_KEY: text})


def test_an_unknown_scheme_lists_the_known_ones():
    """The scheme may belong to a plug-in that is not installed."""
    with pytest.raises(UnknownNameError, match="No quantization scheme is called 'nf5'"):
        unflatten_state_dict(_flat()[0], _described(scheme={"scheme": "nf5"}))


def test_a_name_that_two_tensors_would_have_is_refused():
    """A dense tensor called like a part would be lost."""
    with pytest.raises(WeightFormatError, match=r"'w\.packed' of the packed weight 'w' has the name of another tensor"):
        flatten_state_dict({"w": bs.quantize(torch.ones(8, 64), "nf4"), "w.packed": torch.ones(2)})
