"""What the model cannot read is refused before the first step, with the row and the way out."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

import bedstone as bs
from bedstone.core.errors import InvalidConfigError
from bedstone.train.config import parse_config
from bedstone.train.errors import ModelLoadError
from bedstone.train.folder import RunFolder
from bedstone.train.setup import prepare


@pytest.fixture
def model(tiny_folder, tmp_path):
    """A copy of the tiny model with another config."""

    def make(**values):
        folder = shutil.copytree(tiny_folder, tmp_path / "model")
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return folder

    return make


def test_a_row_longer_than_the_model_can_read_is_named(config, model, rows_file):
    """A model with learned positions would fail in the middle of a run, another one would read nonsense."""
    with pytest.raises(InvalidConfigError) as caught:
        bs.finetune(config(base_model=str(model(max_position_embeddings=32))))
    assert str(caught.value) == (
        f"{rows_file}:12 has 141 tokens, and the model reads at most 32. Set `sequence_len` (=256) to at most 32."
    )


def test_a_tokenizer_of_another_model_is_refused(config, model):
    """Its tokens lie beyond the embedding."""
    folder = model(vocab_size=64)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:64].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError) as caught:
        bs.finetune(config(base_model=str(folder)))
    assert str(caught.value) == (
        f"The tokenizer of {folder} writes token 321, and its model knows only 64 tokens. Put the tokenizer that the "
        "model was trained with beside it."
    )


def test_a_tokenizer_without_a_padding_token_is_left_as_it_is(config, model, tmp_path):
    """The batches need no such token, and the exported tokenizer must not invent one."""
    folder = model()
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text())
    values.pop("pad_token")
    path.write_text(json.dumps(values))
    (tmp_path / "run").mkdir()
    session, _ = prepare(parse_config(config(base_model=str(folder))), RunFolder(tmp_path / "run"))
    assert session.tokenizer.pad_token is None
