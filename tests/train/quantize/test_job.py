"""A model is packed, measured against itself and saved so that transformers loads it; a failure leaves nothing behind."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

import bedstone as bs
from bedstone.core.errors import CoreError, InvalidConfigError, StorageError, UnknownNameError
from bedstone.quant import NF4, BedstoneConfig, QuantizationError, QuantizedTensor, model_bytes
from bedstone.testing.tiny import save_tiny_model, tiny_llama, tiny_tokenizer
from bedstone.train.errors import ModelLoadError
from bedstone.train.quantize import quantize_model
from bedstone.train.quantize.job import _packed_copy

SCHEMES = ("nf4", "fp4", "int8", "fp8", "ternary")
IDS = torch.arange(3, 200).reshape(1, -1)


pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Some lines that differ."""
    path = tmp_path_factory.mktemp("text") / "some.txt"
    path.write_text("".join(f"Line {n} of {n * n}: What does it return in Python?\n" for n in range(60)))
    return path


@pytest.fixture(scope="module")
def done(tiny_folder, text, tmp_path_factory, on_the_cpu):
    """One packed model that several tests look at."""
    out = tmp_path_factory.mktemp("packed") / "parents" / "are-made"
    return quantize_model(str(tiny_folder), out, NF4(double_quant=True), texts=[text], tokens=700)


@torch.inference_mode()
def logits(model):
    return model(input_ids=IDS).logits


def test_transformers_loads_the_folder(done, tiny_folder):
    """The weights are those that `bedstone.quantize` packs, bit for bit; the tokenizer is there."""
    expected = AutoModelForCausalLM.from_pretrained(tiny_folder)
    bs.quantize(expected, NF4(double_quant=True))
    loaded = AutoModelForCausalLM.from_pretrained(done.folder)
    assert isinstance(loaded.config.quantization_config, BedstoneConfig)
    assert isinstance(loaded.model.layers[1].mlp.up_proj.weight, QuantizedTensor)
    assert torch.equal(logits(loaded), logits(expected))
    assert model_bytes(loaded) == model_bytes(expected) == done.packed_bytes
    words = "What does it return?"
    assert AutoTokenizer.from_pretrained(done.folder)(words) == AutoTokenizer.from_pretrained(tiny_folder)(words)


def test_the_figures_are_those_of_whole_logits(done, tiny_folder, text):
    """Measured again with torch alone, all logits in memory, window by window of 512."""
    dense, packed = (AutoModelForCausalLM.from_pretrained(folder) for folder in (tiny_folder, done.folder))
    ids = AutoTokenizer.from_pretrained(tiny_folder)(text.read_text(), return_tensors="pt")["input_ids"][:, :700]
    kl, same, before, after, count = 0.0, 0, 0.0, 0.0, 0
    for window in ids.split(512, dim=1):
        with torch.inference_mode():
            p, q = (model(input_ids=window).logits[0, :-1].double() for model in (dense, packed))
        kl += functional.kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="sum", log_target=True).item()
        same += (p.argmax(-1) == q.argmax(-1)).sum().item()
        before += functional.cross_entropy(p, window[0, 1:], reduction="sum").item()
        after += functional.cross_entropy(q, window[0, 1:], reduction="sum").item()
        count += window.shape[1] - 1
    [measured] = done.texts
    found = measured.divergence
    assert (measured.name, found.tokens, count) == ("some.txt", 698, 698)
    assert found.mean_kl == pytest.approx(kl / count, rel=1e-3)  # float32 logits, KL of 1e-4
    assert found.agreement == same / count
    assert found.reference_perplexity == pytest.approx(math.exp(before / count), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(after / count), rel=1e-5)


def test_sizes_and_errors_of_each_layer(done, tiny_folder):
    """Each error is that of the weight itself; the tied output layer stays dense, and it is said why."""
    dense = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert done.dense_bytes == model_bytes(dense)
    assert len(done.layers.packed) == 14
    for layer in done.layers.packed:
        weight = dense.get_submodule(layer.name).weight
        again = bs.quantize(weight, NF4(double_quant=True))
        error = torch.linalg.vector_norm(again.dequantize() - weight) / torch.linalg.vector_norm(weight)
        assert layer.error == pytest.approx(error.item(), rel=1e-5)
        assert (layer.dense_bytes, layer.packed_bytes) == (weight.nbytes, again.packed_bytes)
    assert done.layers.skipped == (("lm_head", "it is the output layer and shares its weight with the embedding"),)
    assert done.worst.error == max(layer.error for layer in done.layers.packed)
    assert 0.08 < done.median_error < 0.11
    assert 4.0 < done.bits_per_weight < 4.2


def test_the_folder_holds_every_figure_for_programs(done):
    """Strict JSON beside the model."""
    kept = json.loads((done.folder / "quantization.json").read_text())
    assert kept == json.loads(json.dumps(done.to_dict()))
    assert kept["scheme"] == {"scheme": "nf4", "block_size": 64, "double_quant": True}
    assert kept["texts"][0]["kl_nats"] == done.texts[0].divergence.mean_kl
    assert kept["gguf"] is None
    assert sorted(path.name for path in done.folder.parent.iterdir()) == ["are-made"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme(scheme, tiny_folder, text, tmp_path):
    """Each one loads again; the coarser the scheme, the larger the distance."""
    outcome = quantize_model(str(tiny_folder), tmp_path / "out", scheme, texts=[text], tokens=64)
    assert outcome.packed_bytes < outcome.dense_bytes
    assert outcome.texts[0].divergence.mean_kl > 0
    expected = AutoModelForCausalLM.from_pretrained(tiny_folder)
    bs.quantize(expected, scheme)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(outcome.folder)), logits(expected))


def test_half_precision_files_stay_half_precision(text, tmp_path):
    """Measured in float32 on a CPU, counted and saved in the dtype of the model's files."""
    tiny_tokenizer().save_pretrained(tmp_path / "bf16")
    tiny_llama().to(torch.bfloat16).save_pretrained(tmp_path / "bf16")
    outcome = quantize_model(str(tmp_path / "bf16"), tmp_path / "out", texts=[text], tokens=64)
    dense = AutoModelForCausalLM.from_pretrained(tmp_path / "bf16")
    loaded = AutoModelForCausalLM.from_pretrained(outcome.folder)
    assert outcome.dtype == "torch.bfloat16"
    assert outcome.dense_bytes == model_bytes(dense)
    assert outcome.layers.packed[0].dense_bytes == 64 * 64 * 2
    assert loaded.model.embed_tokens.weight.dtype == torch.bfloat16
    assert torch.equal(loaded.model.embed_tokens.weight, dense.model.embed_tokens.weight)
    weight = bs.quantize(dense.model.layers[0].mlp.up_proj.weight, "nf4")
    packed = loaded.model.layers[0].mlp.up_proj.weight
    assert packed.dtype == torch.bfloat16
    assert all(torch.equal(part, packed.parts[name]) for name, part in weight.parts.items())


def test_the_output_layer_and_what_is_skipped_stay_dense(text, tmp_path):
    """An output layer of its own too, as transformers has it; each with its reason."""
    folder = save_tiny_model(tmp_path / "untied", tie_word_embeddings=False)
    outcome = quantize_model(str(folder), tmp_path / "out", skip=["layers.0", "down_proj"], texts=[text], tokens=64)
    assert [layer.name.removeprefix("model.layers.1.") for layer in outcome.layers.packed] == [
        *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        *("mlp.gate_proj", "mlp.up_proj"),
    ]
    skipped = dict(outcome.layers.skipped)
    assert skipped["lm_head"] == "it is the output layer"
    assert skipped["model.layers.1.mlp.down_proj"] == "skipped by name"
    AutoModelForCausalLM.from_pretrained(outcome.folder)


def test_nothing_is_in_memory_twice():
    """The packed copy shares every tensor that is not packed with the dense model, which stays dense."""
    dense = tiny_llama()
    packed, _ = _packed_copy(dense, NF4(), ())
    assert packed.model.embed_tokens.weight is dense.model.embed_tokens.weight
    assert packed.lm_head.weight is dense.model.embed_tokens.weight
    assert packed.model.norm.weight is dense.model.norm.weight
    assert isinstance(packed.model.layers[0].mlp.up_proj.weight, QuantizedTensor)
    assert type(dense.model.layers[0].mlp.up_proj.weight) is torch.nn.Parameter


def test_tells_how_far_it_is(tiny_folder, text, tmp_path, events):
    """Packing by layers, comparing by tokens, from 0 to all."""
    quantize_model(str(tiny_folder), tmp_path / "out", texts=[text, text], tokens=600)
    told = [(e.phase, e.done, e.total, e.unit) for e in events if e.name == "progress"]
    packing = [done for phase, done, total, unit in told if (total, unit) == (14, "layers")]
    comparing = [done for phase, done, total, unit in told if (total, unit) == (2 * 598, "tokens")]
    assert packing == list(range(15))
    assert comparing == [0, 511, 598, 598 + 511, 2 * 598]


# --- what is refused, before anything is written -----------------------------------------------------


def refused(error, tmp_path, *arguments, **options):
    """The message of a refusal that left nothing in the folder of the test."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error) as caught:
        quantize_model(*arguments, **options)
    assert isinstance(caught.value, CoreError)
    assert sorted(tmp_path.rglob("*")) == before
    return str(caught.value)


def test_refuses_an_unknown_scheme(tiny_folder, tmp_path):
    """With the nearest name."""
    said = refused(UnknownNameError, tmp_path, str(tiny_folder), tmp_path / "out", "nf5")
    assert said.startswith("No quantization scheme is called 'nf5'. Did you mean 'nf4'? Known: ")


def test_refuses_a_folder_with_something_in_it(tiny_folder, tmp_path):
    """Nothing of the user's is replaced; an empty folder is taken."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "other.txt").write_text("mine")
    said = refused(StorageError, tmp_path, str(tiny_folder), tmp_path / "out")
    assert said == (
        f"The output folder {tmp_path / 'out'} is not empty: it holds notes.txt and 1 more. "
        "Name a new one; nothing is replaced."
    )
    (tmp_path / "file").write_text("mine")
    said = refused(StorageError, tmp_path, str(tiny_folder), tmp_path / "file")
    assert said == f"The output folder {tmp_path / 'file'} is not a folder. Name a new one; nothing is replaced."


def test_takes_an_empty_folder(tiny_folder, text, tmp_path):
    """As `mkdir out` leaves it."""
    (tmp_path / "out").mkdir()
    outcome = quantize_model(str(tiny_folder), tmp_path / "out", texts=[text], tokens=16)
    assert outcome.report.is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_refuses_a_place_that_cannot_be_written(tiny_folder, tmp_path):
    """Before the work, not after it."""
    (tmp_path / "locked").mkdir(mode=0o500)
    said = refused(StorageError, tmp_path, str(tiny_folder), tmp_path / "locked" / "out")
    assert said.endswith("Permission denied.")


def test_refuses_a_parent_that_is_a_file(tiny_folder, tmp_path):
    """Before the work, not after it."""
    (tmp_path / "file").write_text("")
    said = refused(StorageError, tmp_path, str(tiny_folder), tmp_path / "file" / "out")
    assert said == f"Could not look at the output folder at {tmp_path / 'file' / 'out'}: Not a directory."


def test_refuses_a_model_that_is_not_there(tiny_folder, tmp_path):
    """In the words of this command."""
    near = tiny_folder.with_name("tinny")
    said = refused(ModelLoadError, tmp_path, str(near), tmp_path / "out")
    assert said.startswith(f"`MODEL` (={str(near)!r}): there is no such file or folder. Did you mean {tiny_folder}? ")


def test_refuses_a_packed_model(done, tmp_path):
    """A second packing of it would only lose more."""
    said = refused(QuantizationError, tmp_path, str(done.folder), tmp_path / "out", "int8")
    assert said == (
        f"The model {done.folder} is quantized already, by bedstone: its config.json has a quantization_config. "
        "Name the dense model that it was made from."
    )


def test_refuses_a_model_without_linear_layers(tmp_path):
    """GPT-2 multiplies with a class of its own; its one linear layer is the tied output."""
    tokenizer = tiny_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    said = refused(QuantizationError, tmp_path, str(tmp_path / "gpt2"), tmp_path / "out")
    assert said == (
        "GPT2LMHeadModel has no linear layer to pack as nf4: all 1 linear layers stay dense. "
        "Choose another model, or skip less."
    )


def test_refuses_a_layer_that_the_model_lacks(tiny_folder, text, tmp_path):
    """With the names it has."""
    said = refused(
        UnknownNameError, tmp_path, str(tiny_folder), tmp_path / "out", skip=["up_prj"], texts=[text], tokens=8
    )
    assert "No linear layer of the model is called 'up_prj'. Did you mean 'up_proj'?" in said


@pytest.mark.parametrize("tokens", [1, 0, -5])
def test_refuses_too_few_tokens(tiny_folder, tmp_path, tokens):
    """One is read, one is predicted."""
    said = refused(InvalidConfigError, tmp_path, str(tiny_folder), tmp_path / "out", tokens=tokens)
    assert said == f"`tokens` (={tokens}) must be at least 2."


# After packing the system refuses files beyond a size: a real failure of a real write.
RUN = """
import resource, signal, sys
import torch
torch.set_num_threads(1)
from bedstone.core.errors import StorageError
from bedstone.core.events import add_sink
from bedstone.train.quantize import quantize_model
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def fill(event):
    if event.name == "progress":
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

add_sink(fill)
try:
    quantize_model(sys.argv[1], sys.argv[2], tokens=16)
except StorageError as error:
    print(error)
    sys.exit(2)
"""


def test_a_full_disk_leaves_nothing(tiny_folder, tmp_path):
    """One sentence, and neither the folder nor a hidden half of it."""
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", RUN, tiny_folder, out], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, f"Could not save the packed model at {out}: File too large.\n"), done
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_seen_before_the_comparison(tiny_folder, tmp_path, events, monkeypatch):
    """A model that cannot be saved is not measured first."""
    monkeypatch.setattr("bedstone.train.quantize.destination._ROOM_BESIDE_WEIGHTS", 1 << 62)
    said = refused(StorageError, tmp_path, str(tiny_folder), tmp_path / "out")
    assert said.startswith(f"Could not save the packed model at {tmp_path}: ")
    assert said.endswith("free. Free some space, or name a folder on another disk.")
    assert not any("Comparing" in event.phase for event in events if event.name == "progress")


@pytest.mark.slow
def test_knows_the_formats_of_the_gguf_file_it_came_from(text, tmp_path, monkeypatch):
    """This one is dense, so there is nothing to warn of."""
    from bedstone.testing.gguf import write_tiny_gguf

    monkeypatch.setenv("BEDSTONE_CACHE", str(tmp_path / "cache"))
    gguf = write_tiny_gguf(tmp_path / "tiny.gguf")
    outcome = quantize_model(str(gguf), tmp_path / "out", texts=[text], tokens=64)
    assert dict(outcome.earlier.tensors) == {"F32": 20}
    assert outcome.second_quantization == ""
