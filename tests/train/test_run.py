"""A run leaves a folder that says everything, refuses to overwrite one, and its adapter loads in plain peft."""

from __future__ import annotations

import json
import os
import signal
import warnings
from pathlib import Path

import pytest
import torch

import bedstone as bs
from bedstone.core.errors import InvalidConfigError, StorageError
from bedstone.core.events import TrainingStep, sink
from bedstone.repro import RunLock, sha256_file
from bedstone.train.errors import InterruptedRunError, ModelLoadError, ResumeError

PROMPT = "Say amber."


def events_of(run):
    return [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]


def test_the_folder_holds_everything(config):
    """Configuration with origins, manifest, events, checkpoints, adapter, report."""
    run = bs.finetune(config(sample_prompts=[PROMPT], sample_max_new_tokens=4))
    present = {path.name for path in run.folder.iterdir()}
    assert present >= {"config.yaml", "manifest.json", "events.jsonl", "checkpoints", "adapter", "report.html"}
    names = [event["event"] for event in events_of(run)]
    assert names.count("training_step") == 8
    assert names.count("evaluated") == 2
    assert [names.index(name) for name in ("data_prepared", "run_started", "run_finished")] == sorted(
        names.index(name) for name in ("data_prepared", "run_started", "run_finished")
    )
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert manifest["config_hash"] == run.summary.config_hash
    assert manifest["data"]["train"]["rows"] == 12
    assert "# argument" in (run.folder / "config.yaml").read_text()
    assert run.summary.weights_sha256 == sha256_file(run.adapter / "adapter_model.safetensors")
    assert max(path.name for path in (run.folder / "checkpoints").glob("step-*")) == "step-000008"


def test_the_adapter_loads_in_plain_peft_with_equal_logits(config, tiny_folder):
    """Peft needs nothing of ours."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = bs.finetune(config())
    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7, 8]])
    plain = base(input_ids=ids).logits
    with warnings.catch_warnings():
        # Of peft 0.21 under transformers 5, whoever calls it.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        theirs = PeftModel.from_pretrained(base, run.adapter).eval()(input_ids=ids).logits
    assert torch.equal(theirs, run._loaded[0](input_ids=ids).logits)
    assert not torch.allclose(theirs, plain)


def test_a_run_answers_as_its_last_sample_did(config):
    """What the folder holds is what was trained."""
    run = bs.finetune(config(sample_prompts=[PROMPT], sample_max_new_tokens=6, max_steps=20))
    assert bs.load_run(run.folder).generate(PROMPT, max_new_tokens=6) == run.summary.answers[0].after


def test_full_fine_tuning_leaves_a_whole_model(config):
    """Without an adapter the result is a model folder that transformers loads."""
    run = bs.finetune(config(adapter="", lora_r=..., lora_alpha=..., lora_dropout=..., sample_prompts=[PROMPT]))
    assert run.adapter is None
    assert (run.weights / "model.safetensors").is_file()
    assert bs.load_run(run.folder).generate(PROMPT, max_new_tokens=3) is not None


def test_two_runs_of_one_seed_are_bit_equal(config, tmp_path):
    """Everything random comes from the seed, dropout and shuffling included."""
    digests = {bs.finetune(config(output_dir=str(tmp_path / name))).summary.weights_sha256 for name in "ab"}
    assert len(digests) == 1


def test_resuming_in_process_equals_never_stopping(config, tmp_path):
    """A stop between two steps, in the middle of an epoch, leaves no trace in the result."""
    whole = bs.finetune(config(output_dir=str(tmp_path / "whole")))

    def stop_at_5(event):
        if isinstance(event, TrainingStep) and event.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with sink(stop_at_5), pytest.raises(InterruptedRunError) as caught:
        bs.finetune(config())
    assert signal.getsignal(signal.SIGTERM) is handler
    folder = Path(config()["output_dir"])
    assert str(caught.value) == (
        f"Stopped by SIGTERM after step 5 of 8. A checkpoint is in {folder}/checkpoints/step-000005. "
        "Run the same command with `--resume auto` to go on."
    )
    assert (caught.value.signal, caught.value.step) == (signal.SIGTERM, 5)
    again = bs.finetune(config(), resume="auto")
    assert again.summary.weights_sha256 == whole.summary.weights_sha256
    assert again.summary.loss_before == whole.summary.loss_before
    steps = [event["step"] for event in events_of(again) if event["event"] == "training_step"]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_existing_run_is_never_overwritten(config):
    """Finished or not, the folder is refused by name unless the run is resumed."""
    run = bs.finetune(config())
    before = (run.folder / "events.jsonl").read_bytes()
    with pytest.raises(ResumeError) as caught:
        bs.finetune(config())
    assert str(caught.value) == (
        f"{run.folder} holds a finished run; nothing was touched. Set another `output_dir`, or remove the folder if you "
        "no longer need it."
    )
    assert (run.folder / "events.jsonl").read_bytes() == before


def test_resuming_a_finished_run_does_nothing(config):
    """The same summary comes back; no step is taken."""
    run = bs.finetune(config())
    before = (run.folder / "events.jsonl").read_bytes()
    assert bs.finetune(config(), resume="auto").summary == run.summary
    assert (run.folder / "events.jsonl").read_bytes() == before


def test_resuming_with_another_configuration_lists_what_changed(config):
    """A silent mixture of two configurations would be nobody's experiment."""
    run = bs.finetune(config())
    (run.folder / "summary.json").unlink()
    with pytest.raises(ResumeError) as caught:
        bs.finetune(config(lora_alpha=32, learning_rate=2e-2), resume="auto")
    assert caught.value.changed == ("learning_rate: 0.01 -> 0.02", "lora_alpha: 8 -> 32")


def test_resuming_with_changed_data_is_refused(config, rows_file, tmp_path):
    """The same path with other rows is other data."""
    own = tmp_path / "rows.jsonl"
    own.write_text(rows_file.read_text())
    data = [{"type": "alpaca", "path": str(own)}]
    run = bs.finetune(config(datasets=data))
    (run.folder / "summary.json").unlink()
    own.write_text(rows_file.read_text().replace("amber", "umber"))
    with pytest.raises(ResumeError, match=r"train\.fingerprint: "):
        bs.finetune(config(datasets=data), resume="auto")


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(config, tmp_path, events):
    """One flipped byte is noticed, said, and costs only the steps since the checkpoint before."""
    whole = bs.finetune(config(output_dir=str(tmp_path / "whole")))
    run = bs.finetune(config())
    (run.folder / "summary.json").unlink()
    newest = max((run.folder / "checkpoints").glob("step-*"))
    weights = newest / "parameters.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    again = bs.finetune(config(), resume="auto")
    damaged = [event for event in events if event.name == "checkpoint_damaged"]
    assert damaged[0].path == str(newest)
    assert "parameters.safetensors" in damaged[0].reason
    started = [event for event in events if event.name == "run_started"][-1]
    assert started.resumed_from_step == 6
    assert again.summary.weights_sha256 == whole.summary.weights_sha256


def test_a_damaged_checkpoint_that_is_named_is_refused(config):
    """Whoever asks for one checkpoint gets that one or an error."""
    run = bs.finetune(config())
    (run.folder / "summary.json").unlink()
    newest = max((run.folder / "checkpoints").glob("step-*"))
    (newest / "optimizer.safetensors").unlink()
    with pytest.raises(StorageError, match=r"optimizer\.safetensors"):
        bs.finetune(config(), resume=newest)


def test_resume_auto_without_a_checkpoint_starts_afresh(config):
    """The same command works the first time."""
    assert bs.finetune(config(max_steps=2), resume="auto").summary.steps == 2


def test_two_runs_in_one_folder_are_refused(config):
    """The lock names the holder."""
    folder = Path(config()["output_dir"])
    folder.mkdir()
    with RunLock(folder), pytest.raises(StorageError, match=str(os.getpid())):
        bs.finetune(config())


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"base_model": "no/such/folder/x"}, ModelLoadError, "there is no such file or folder"),
        ({"base_model": "missing.gguf"}, ModelLoadError, "there is no such file or folder"),
        ({"lora_r": 4096}, InvalidConfigError, "must not exceed the smaller side"),
        ({"lora_target_modules": ["q_prj"]}, LookupError, "Did you mean 'q_proj'"),
    ],
)
def test_mistakes_are_named_and_leave_no_run_behind(config, changes, error, text):
    """After the mistake is mended, the same command runs."""
    with pytest.raises(error, match=text):
        bs.finetune(config(**changes))
    assert not (Path(config()["output_dir"]) / "manifest.json").exists()
    assert bs.finetune(config(max_steps=1), resume="auto").summary.steps == 1


def test_load_run_refuses_an_unfinished_run(config):
    """Half a run has nothing to answer with."""
    run = bs.finetune(config(max_steps=1))
    (run.folder / "summary.json").unlink()
    with pytest.raises(StorageError) as caught:
        bs.load_run(run.folder)
    assert str(caught.value) == (
        f"The run in {run.folder} is not finished. Finish it with `bedstone train CONFIG --resume auto`."
    )


@pytest.mark.parametrize(("prompt", "tokens"), [("  ", 5), ("hello", 0)])
def test_generate_refuses_what_makes_no_sense(config, prompt, tokens):
    """An empty prompt, a number of tokens below one."""
    run = bs.finetune(config(max_steps=1))
    with pytest.raises(InvalidConfigError):
        run.generate(prompt, max_new_tokens=tokens)


def test_a_question_is_put_as_the_training_rows_were(config):
    """A model trained on Alpaca prompts is asked with one, though its tokenizer has a chat template."""
    from bedstone.testing.tiny import tiny_tokenizer
    from bedstone.train.config import parse_config
    from bedstone.train.data import ChatRenderer, format_of, instruction_prompt

    dataset = parse_config(config()).datasets[0]
    asked = format_of(dataset).question(PROMPT, ChatRenderer(tiny_tokenizer()))
    assert asked.endswith(instruction_prompt(PROMPT))
    assert "<|im_start|>user" not in asked
