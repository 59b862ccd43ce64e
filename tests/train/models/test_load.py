"""A model is loaded whole or refused by name; what a library says at length becomes one paragraph."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from bedstone.train.errors import ModelLoadError
from bedstone.train.models import load_model, load_tokenizer, locate, longest_input

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_folder, tmp_path):
    """A copy of the tiny model that a test may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def load(folder):
    return load_model(locate(str(folder)), dtype=torch.float32, device=CPU)


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_missing_weight_is_refused_and_not_made_up(model, capfd):
    """Transformers would fill it with random numbers and train on."""
    change_weights(model, lambda tensors: tensors.pop("model.layers.0.self_attn.q_proj.weight"))
    with pytest.raises(ModelLoadError) as caught:
        load(model)
    assert str(caught.value) == (
        f"The files of {model} lack weights: model.layers.0.self_attn.q_proj.weight. Get the whole model again; if it was "
        "made for another task than writing text, choose another one."
    )
    assert "REPORT" not in capfd.readouterr().err


def test_a_head_that_is_tied_may_be_missing_and_an_untied_one_may_not(model):
    """The same file, read with another config."""
    assert load(model).lm_head.weight.shape[0] > 0
    change_config(model, tie_word_embeddings=False)
    with pytest.raises(ModelLoadError, match=r"lack weights: lm_head\.weight\."):
        load(model)


def test_weights_of_another_shape_are_refused(model):
    """The first one is named with both shapes, the rest counted."""
    change_config(model, intermediate_size=96)
    with pytest.raises(ModelLoadError) as caught:
        load(model)
    assert str(caught.value).startswith(
        f"The files of {model} hold weights of another shape than its config.json says: "
        "model.layers.0.mlp.down_proj.weight is [64, 128], not [64, 96] and 5 more. "
    )


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_torn_file_is_refused(model, kept):
    """A download that stopped."""
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ModelLoadError) as caught:
        load(model)
    assert str(caught.value).startswith(f"The model in {model} could not be loaded: Error while deserializing header: ")
    assert str(caught.value).endswith(
        ". Check that the folder is complete: config.json, tokenizer files, *.safetensors."
    )


def test_a_tokenizer_that_is_missing_or_torn_is_refused(model):
    """Whatever class the libraries raise."""
    path = model / "tokenizer.json"
    path.write_text(path.read_text()[:1000])
    for _ in range(2):
        with pytest.raises(ModelLoadError, match=rf"^The model in {model} could not be loaded: "):
            load_tokenizer(locate(str(model)))
        path.unlink(missing_ok=True)


def test_float16_weights_are_read_as_float32(model):
    """The dtype of the file is not that of the run."""
    change_weights(model, lambda tensors: tensors.update({name: t.half() for name, t in tensors.items()}))
    change_config(model, dtype="float16")
    assert {p.dtype for p in load(model).parameters()} == {torch.float32}


def test_the_settings_of_transformers_are_put_back(tiny_folder):
    """They belong to the process."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    load(tiny_folder)
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before


def test_a_hub_id_without_a_network_is_refused_at_once(monkeypatch, tmp_path):
    """Left to itself, the hub's client tries for most of a minute."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    # A port of this machine where nobody listens: refused like a network that is not there, and nothing leaves it.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    start = time.monotonic()
    with pytest.raises(ModelLoadError) as caught:
        load_tokenizer(locate("nobody/nothing"))
    assert time.monotonic() - start < 10
    assert str(caught.value).startswith(
        "`base_model` (='nobody/nothing') is no file or folder here and could not be had from the hub: "
    )
    assert str(caught.value).endswith(
        " Check the spelling and the network (and HF_TOKEN for a gated model), or download it elsewhere and give the "
        "folder's path."
    )


def test_a_model_says_how_much_it_can_read(tiny_folder):
    """From its config; not every architecture has a limit."""
    from transformers import BloomConfig, BloomForCausalLM

    made = load(tiny_folder)
    assert longest_input(made) == made.config.max_position_embeddings
    bloom = BloomForCausalLM(BloomConfig(vocab_size=8, hidden_size=8, n_layer=1, n_head=1))
    assert longest_input(bloom) is None
