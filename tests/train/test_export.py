"""The trained weights appear whole or not at all, whatever the disk or a kill does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import bedstone as bs
from bedstone.core.errors import StorageError
from bedstone.testing.tiny import tiny_llama, tiny_tokenizer
from bedstone.train.export import export, weights_file

# After the last evaluation the system refuses files beyond a size: a real failure of a real write.
RUN = """
import json, resource, signal, sys
import torch
torch.set_num_threads(1)
import bedstone
from bedstone.core.events import add_sink
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def fill(event):
    if event.name == "evaluated" and event.step == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))

add_sink(fill)
try:
    bedstone.finetune(json.loads(sys.argv[1]))
except bedstone.StorageError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize(
    ("changes", "limit_bytes"),
    [({"lora_r": 8}, 30_000), ({"adapter": "", "lora_r": ..., "lora_alpha": ..., "lora_dropout": ...}, 100_000)],
    ids=["adapter", "model"],
)
def test_a_full_disk_at_the_very_end_loses_nothing(config, tmp_path, changes, limit_bytes):
    """Safetensors says it in an error of its own; the run says it as for any file, and goes on when there is room."""
    values = config(max_steps=2, save_steps=..., **changes)
    words = [sys.executable, "-c", RUN, json.dumps(values), str(limit_bytes)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    name = "adapter" if values["adapter"] else "model"
    assert done.stdout == f"Could not write the trained weights at {tmp_path / 'run' / name}: File too large.\n"
    assert not any(name in path.name for path in (tmp_path / "run").iterdir())
    resumed = bs.finetune(values, resume="auto")
    assert (
        resumed.summary.weights_sha256
        == bs.finetune(values | {"output_dir": str(tmp_path / "b")}).summary.weights_sha256
    )


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path):
    """Half a folder under a hidden name; nobody meets it, and it does not stay."""
    (tmp_path / ".tmp-model-0123abcd").mkdir()
    export(tiny_llama(), tiny_tokenizer(), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_earlier_result_is_replaced_whole(tmp_path):
    """No file of it stays."""
    target = tmp_path / "model"
    first = export(tiny_llama(), tiny_tokenizer(), target)
    (target / "old.txt").write_text("old")
    assert export(tiny_llama(), tiny_tokenizer(), target) == first
    assert not (target / "old.txt").exists()


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_an_adapter_of_the_output_head_holds_no_copy_of_the_base(config):
    """Peft would add the whole embedding, with a warning, and ask the hub whether the vocabulary has grown."""
    from safetensors.torch import load_file

    run = bs.finetune(config(max_steps=1, lora_target_modules=["lm_head"]))
    names = sorted(load_file(run.weights / "adapter_model.safetensors"))
    assert [name.rpartition("lm_head.")[2] for name in names] == ["lora_A.weight", "lora_B.weight"]


def test_a_folder_without_weights_is_named(tmp_path):
    """With the way on."""
    with pytest.raises(StorageError) as caught:
        weights_file(tmp_path)
    assert str(caught.value) == f"{tmp_path} holds no trained weights. Finish the run with `--resume auto`."
