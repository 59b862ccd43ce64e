"""A file of packed weights comes back bit for bit into any model of its shape; a damaged one is refused with path and reason."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

import bedstone as bs
from bedstone import quant
from bedstone.core.errors import ShapeMismatchError, StorageError, UnsupportedError
from bedstone.quant.formats import FormatVersionError, WeightFormatError, load_quantized, save_quantized
from bedstone.quant.formats.flat import METADATA_KEY
from bedstone.repro.tensor_file import write_tensors
from bedstone.testing import tiny_llama


def _packed_llama(scheme="nf4"):
    model = tiny_llama()
    bs.quantize(model, scheme)
    return model


@pytest.mark.parametrize("scheme", ["nf4", "fp4", "int8", "fp8", "ternary", quant.NF4(double_quant=True)], ids=str)
def test_a_model_comes_back_with_equal_logits(tmp_path, scheme):
    """Saved, loaded into a dense model without memory, and run: the logits are the same bits."""
    model, path = _packed_llama(scheme), tmp_path / "m.safetensors"
    save_quantized(model, path)
    other = tiny_llama(seed=1)
    load_quantized(path, other)
    ids = torch.arange(20).view(1, -1)
    assert torch.equal(other(ids).logits, model(ids).logits)
    assert other.lm_head.weight is other.model.embed_tokens.weight
    assert isinstance(other.model.layers[0].mlp.up_proj.weight, quant.QuantizedTensor)


def test_a_model_on_meta_is_filled(tmp_path):
    """A model that was made without memory gets all of its weights from the file."""
    model = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    bs.quantize(model, "int8", skip=["2"])
    save_quantized(model, tmp_path / "m.safetensors")
    with torch.device("meta"):
        empty = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    load_quantized(tmp_path / "m.safetensors", empty)
    x = torch.randn(3, 64)
    assert torch.equal(empty(x), model(x))
    assert [p.requires_grad for p in empty.parameters()] == [False, True, True, True]


def test_a_weight_of_two_names_is_written_once_and_stays_shared(tmp_path):
    """The file is about as large as one copy, and the loaded model has one parameter under both names."""
    model = nn.ModuleList([nn.Linear(256, 256, bias=False), nn.Linear(256, 256, bias=False)])
    model[1].weight = model[0].weight
    bs.quantize(model, "int8")
    record = save_quantized(model, tmp_path / "m.safetensors")
    assert record.bytes == (tmp_path / "m.safetensors").stat().st_size < 1.1 * 256 * 260
    other = nn.ModuleList([nn.Linear(256, 256, bias=False), nn.Linear(256, 256, bias=False)])
    state = load_quantized(tmp_path / "m.safetensors", other)
    assert torch.equal(state["1.weight"].dequantize(), model[0].weight.dequantize())


def test_other_readers_open_the_file(tmp_path):
    """It is a plain safetensors file; the parts are plain tensors under the name of their weight."""
    save_quantized({"w": bs.quantize(torch.ones(8, 64), "nf4")}, tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == ["w.absmax", "w.packed"]
        assert json.loads(file.metadata()[METADATA_KEY])["version"] == 1


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "w.safetensors"
    save_quantized({"w": bs.quantize(torch.randn(8, 64), "nf4"), "b": torch.ones(8)}, path)
    return path


@pytest.mark.parametrize("keep", [0, 4, 60, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved, keep):
    """Wherever it was cut, the message has the path and says to get the file again."""
    content = saved.read_bytes()
    saved.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(StorageError) as caught:
        load_quantized(saved)
    assert str(caught.value).startswith(f"{saved} is damaged or truncated: ")
    assert str(caught.value).endswith("Copy or download the file again.")
    assert caught.value.path == str(saved)


def test_a_flipped_bit_is_refused(saved):
    """A byte of the weights that changed on the way is found, and its tensor is named."""
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(StorageError) as caught:
        load_quantized(saved)
    assert str(caught.value) == (
        f"{saved} is damaged: the bytes of 'w.packed' are not those that were written. Copy or download the file again."
    )


def _rewritten(path, change_tensors=None, change_metadata=None):
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata()  # noqa: SIM118
    (change_tensors or (lambda _: None))(tensors)
    (change_metadata or (lambda _: None))(metadata)
    path.unlink()
    write_tensors(path, tensors, metadata)


def test_a_missing_part_is_refused_with_the_path(saved):
    """The path, the weight and the part are told."""
    _rewritten(saved, lambda tensors: tensors.pop("w.absmax"))
    with pytest.raises(WeightFormatError) as caught:
        load_quantized(saved)
    assert str(caught.value).startswith(f"{saved}: The part 'absmax' of the packed weight 'w' is missing.")
    assert caught.value.path == str(saved)


def test_a_newer_version_is_refused_with_the_path(saved):
    """The message names path and versions."""
    _rewritten(saved, change_metadata=lambda metadata: metadata.update({METADATA_KEY: '{"version": 2}'}))
    with pytest.raises(FormatVersionError) as caught:
        load_quantized(saved)
    assert str(caught.value).startswith(f"{saved}: The packed weights are of format version 2")


def test_a_file_without_packed_weights_is_refused(tmp_path):
    """A file of somebody else is told as such."""
    write_tensors(tmp_path / "a.safetensors", {"w": torch.ones(2)})
    with pytest.raises(StorageError, match="holds no packed weights of bedstone"):
        load_quantized(tmp_path / "a.safetensors")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    """The reason of the operating system comes through, errno included."""
    with pytest.raises(StorageError, match="No such file") as caught:
        load_quantized(tmp_path / "none.safetensors")
    assert caught.value.errno == 2
    with pytest.raises(StorageError, match="Is a directory"):
        load_quantized(tmp_path)


def test_nothing_is_written_on_failure(saved):
    """A state that cannot be written leaves the earlier file and no draft."""
    before = saved.read_bytes()
    with pytest.raises(UnsupportedError, match="'b'"):
        save_quantized({"a": torch.ones(2), "b": torch.ones(2, device="meta")}, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    """Nothing is made on the way."""
    with pytest.raises(StorageError, match="Could not write the packed weights at"):
        save_quantized({"a": torch.ones(2)}, tmp_path / "no" / "a.safetensors")
    assert not (tmp_path / "no").exists()


def test_a_model_of_other_names_or_shapes_is_left_alone(saved):
    """The check comes before the first change."""
    model = nn.Linear(64, 8)
    before = model.weight
    with pytest.raises(WeightFormatError, match="The state lacks 'bias', 'weight'"):
        load_quantized(saved, model)
    other = nn.Module()
    other.w, other.b = nn.Parameter(torch.ones(4, 64)), nn.Parameter(torch.ones(8))
    with pytest.raises(ShapeMismatchError, match=r"`w` has shape \(8, 64\), expected \(4, 64\)"):
        load_quantized(saved, other)
    assert model.weight is before
    assert other.w.requires_grad
