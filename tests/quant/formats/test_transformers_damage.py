"""A packed model whose files are damaged, incomplete or too new, and a dense one that cannot be packed, are refused by name."""

import json
import re
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from bedstone import quant
from bedstone.quant import BedstoneConfig, NonFiniteWeightError
from bedstone.quant.formats import FormatVersionError, WeightFormatError
from bedstone.quant.formats.flat import METADATA_KEY
from bedstone.testing import save_tiny_model

WEIGHT = "model.layers.0.mlp.up_proj.weight"
DAMAGED = "The file or state dict is damaged or incomplete; get it again."


def _as_it_is(mapping):
    """Change nothing."""


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A folder with a tiny dense Llama."""
    return save_tiny_model(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def packed(dense, tmp_path_factory):
    """A folder with the same model packed."""
    folder = tmp_path_factory.mktemp("packed")
    config = BedstoneConfig(quant.NF4(double_quant=True))
    AutoModelForCausalLM.from_pretrained(dense, quantization_config=config).save_pretrained(folder)
    return folder


@pytest.fixture
def rewritten(packed, tmp_path):
    """A function that copies the packed folder with other tensors or metadata."""

    def rewrite(change_tensors=_as_it_is, change_metadata=_as_it_is):
        return _rewritten(packed, tmp_path / "copy", change_tensors, change_metadata)

    return rewrite


def _rewritten(source, folder, change_tensors, change_metadata=_as_it_is):
    shutil.copytree(source, folder)
    with safe_open(folder / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dictionary
        metadata = file.metadata()
    change_tensors(tensors)
    change_metadata(metadata)
    save_file(tensors, folder / "model.safetensors", metadata=metadata)
    return folder


def _refusal(folder, kind=WeightFormatError, **options):
    with pytest.raises(kind) as caught:
        AutoModelForCausalLM.from_pretrained(folder, **options)
    return str(caught.value)


@pytest.mark.parametrize("part", ["packed", "absmax", "nested_absmax", "offset"])
def test_a_missing_part_is_named(rewritten, part):
    """Each part is needed, and none is guessed."""
    folder = rewritten(lambda tensors: tensors.pop(f"{WEIGHT}.{part}"))
    assert _refusal(folder) == f"The part {part!r} of the packed weight {WEIGHT!r} is missing. {DAMAGED}"


@pytest.mark.parametrize("options", [{}, {"output_loading_info": True, "ignore_mismatched_sizes": True}], ids=str)
def test_a_weight_without_any_part_is_named(rewritten, options):
    """By itself transformers would fill it with random numbers and go on."""

    def remove(tensors):
        for name in [name for name in tensors if name.startswith(WEIGHT)]:
            del tensors[name]

    assert (
        _refusal(rewritten(remove), **options)
        == f"The part 'absmax' of the packed weight {WEIGHT!r} is missing. {DAMAGED}"
    )


def test_a_part_of_another_shape_is_named(rewritten):
    """A part that was cut is not padded."""

    def cut(tensors):
        tensors[f"{WEIGHT}.packed"] = tensors[f"{WEIGHT}.packed"][:-1].clone()

    assert _refusal(rewritten(cut)) == (
        f"The part 'packed' of the packed weight {WEIGHT!r} is uint8 (4095,), but nf4 of shape (128, 64) has uint8 (4096,). "
        + DAMAGED
    )


@pytest.mark.parametrize("kept_bytes", [0, 4, 1000, -1], ids=str)
def test_a_truncated_file_is_named(packed, tmp_path, kept_bytes):
    """Wherever it ends: in its first bytes, in its header, before its last byte."""
    shutil.copytree(packed, tmp_path / "copy")
    path = tmp_path / "copy" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    told = _refusal(tmp_path / "copy")
    assert told.startswith(f"{path} cannot be read: ")
    assert told.endswith("The files are damaged or incomplete; get them again.")


def test_files_without_their_description_are_refused(rewritten):
    """A program that rewrites safetensors files may drop their metadata."""
    folder = rewritten(change_metadata=lambda metadata: metadata.pop(METADATA_KEY))
    assert _refusal(folder) == (
        f"config.json says that the weights are packed by bedstone, but {folder / 'model.safetensors'} does not describe them. "
        "Another program may have rewritten the files without their metadata. Save the model with `save_pretrained` again."
    )


@pytest.mark.parametrize("where", ["config", "metadata"])
def test_a_newer_version_is_refused_by_version(rewritten, where):
    """Both say it, and either is believed."""

    def newer(metadata):
        metadata[METADATA_KEY] = json.dumps({"version": 2, "weights": {}})

    folder = rewritten(change_metadata=newer if where == "metadata" else _as_it_is)
    if where == "config":
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    assert _refusal(folder, FormatVersionError) == (
        "The packed weights are of format version 2, and this bedstone reads up to version 1. Install a newer bedstone."
    )


def test_a_damaged_description_is_refused(rewritten):
    """It is read before any weight."""

    def spoil(metadata):
        described = json.loads(metadata[METADATA_KEY])
        described["weights"][WEIGHT]["shape"] = "128 x 64"
        metadata[METADATA_KEY] = json.dumps(described)

    assert _refusal(rewritten(change_metadata=spoil)).startswith(
        f"The description of the packed weight {WEIGHT!r} cannot be read"
    )


def test_packed_files_of_another_shape_than_config_json_says_are_told_like_dense_ones(packed, tmp_path):
    """They are listed as mismatched; with `ignore_mismatched_sizes` the layers are new and dense."""
    shutil.copytree(packed, tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    path.write_text(path.read_text().replace('"intermediate_size": 128', '"intermediate_size": 96'))
    with pytest.raises(RuntimeError, match="You set `ignore_mismatched_sizes` to `False`"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "copy")
    _, found = AutoModelForCausalLM.from_pretrained(
        tmp_path / "copy", ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {re.sub(r"\d", "0", name) for name, _, _ in found["mismatched_keys"]} == {
        f"model.layers.0.mlp.{part}_proj.weight" for part in ("up", "down", "gate")
    }


def test_dense_files_of_another_shape_are_told_like_without_packing(dense, tmp_path):
    """What is to be packed is checked as all else."""
    shutil.copytree(dense, tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    path.write_text(path.read_text().replace('"intermediate_size": 128', '"intermediate_size": 96'))
    options = {"ignore_mismatched_sizes": True, "output_loading_info": True}
    _, plain = AutoModelForCausalLM.from_pretrained(tmp_path / "copy", **options)
    _, found = AutoModelForCausalLM.from_pretrained(tmp_path / "copy", quantization_config=BedstoneConfig(), **options)
    assert found["mismatched_keys"] == plain["mismatched_keys"] != set()


def test_a_weight_that_cannot_be_packed_is_named_with_its_place(dense, tmp_path):
    """The error is the scheme's own, not a table of transformers."""

    def spoil(tensors):
        tensors[WEIGHT][3, 5] = torch.nan

    folder = _rewritten(dense, tmp_path / "copy", spoil)
    assert _refusal(folder, NonFiniteWeightError, quantization_config=BedstoneConfig()) == (
        f"{WEIGHT}: nf4 holds finite weights, but the one at (3, 5) is nan. Find out where it comes from; the model is damaged."
    )


def test_an_error_of_another_packages_scheme_arrives_as_it_is(dense):
    """Only the first: no weight is packed after it."""

    class Broken(quant.Int8):
        packed = 0

        def pack(self, weight):
            type(self).packed += 1
            raise ArithmeticError("out of trits")

    with pytest.raises(ArithmeticError, match=r"^out of trits$"):
        AutoModelForCausalLM.from_pretrained(dense, quantization_config=BedstoneConfig(Broken()))
    assert Broken.packed == 1


def test_a_config_beside_packed_files_is_told_to_be_ignored(packed):
    """It is a warning; what the files hold is what is loaded."""
    with pytest.warns(UserWarning, match="The `quantization_config` from the model will be used"):
        model = AutoModelForCausalLM.from_pretrained(packed, quantization_config=BedstoneConfig("int8"))
    assert model.model.layers[0].mlp.up_proj.weight.scheme == quant.NF4(double_quant=True)
