"""A run goes on from its own checkpoints and no others; a refusal leaves everything as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import bedstone as bs
from bedstone.core.errors import StorageError
from bedstone.repro import CheckpointStore
from bedstone.train.errors import ResumeError


@pytest.fixture
def unfinished(config):
    """A function that runs to the end and takes the end back, so that there is something to resume."""

    def make(**changes):
        run = bs.finetune(config(max_steps=4, **changes))
        (run.folder / "summary.json").unlink()
        return run

    return make


def files_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_mistake_mended_the_same_command_runs(config, rows_file, tmp_path):
    """What never got as far as a checkpoint leaves nothing that could be lost."""
    data = tmp_path / "rows.jsonl"
    values = config(max_steps=1, datasets=[{"type": "alpaca", "path": str(data)}])
    with pytest.raises(StorageError, match="does not exist"):
        bs.finetune(values)
    shutil.copy(rows_file, data)
    assert bs.finetune(values).summary.steps == 1


def test_an_unfinished_run_is_not_begun_again_by_accident(config, unfinished):
    """Its checkpoints are worth something."""
    run = unfinished()
    before = files_of(run.folder)
    with pytest.raises(ResumeError) as caught:
        bs.finetune(config(max_steps=4))
    assert str(caught.value) == (
        f"{run.folder} holds an unfinished run; nothing was touched. Go on with `--resume auto`, set another "
        "`output_dir`, or remove the folder if you no longer need it."
    )
    assert files_of(run.folder) == before


def test_prompts_may_change_and_each_answer_stays_with_its_prompt(config, unfinished):
    """What was asked before the first step is known; of a new prompt only the answer after the last step is."""
    first = unfinished(sample_prompts=["Say amber.", "Say birch."], sample_max_new_tokens=3).summary
    known = {answer.prompt: answer.before for answer in first.answers}
    changed = config(max_steps=4, sample_prompts=["Say birch.", "Say cedar."], sample_max_new_tokens=3)
    again = bs.finetune(changed, resume="auto").summary
    assert [(answer.prompt, answer.before) for answer in again.answers] == [
        ("Say birch.", known["Say birch."]),
        ("Say cedar.", None),
    ]
    assert again.weights_sha256 == first.weights_sha256


@pytest.mark.parametrize("wrong", ["Auto", "checkpoints", "", "checkpoints/step-000004/index.json"])
def test_a_path_that_is_no_checkpoint_is_refused_with_one_that_is(config, unfinished, wrong):
    """The run's own files say nothing of it."""
    run = unfinished()
    before = files_of(run.folder)
    with pytest.raises(ResumeError) as caught:
        bs.finetune(config(max_steps=4), resume=run.folder / wrong)
    assert str(caught.value) == (
        f"`--resume {run.folder / wrong}`: that is no checkpoint. Write `--resume auto`, or name a checkpoint such as "
        f"{run.folder}/checkpoints/step-000004."
    )
    assert files_of(run.folder) == before


def test_a_checkpoint_of_something_else_is_refused(config, unfinished):
    """Anybody may keep checkpoints with `bedstone.repro`."""
    run = unfinished()
    other = CheckpointStore(run.folder / "checkpoints").save(9, {"model": {"weight": torch.zeros(2)}})
    with pytest.raises(ResumeError) as caught:
        bs.finetune(config(max_steps=4), resume="auto")
    assert str(caught.value) == (
        f"The checkpoint {other} is of no fine-tuning run; nothing was touched. Name another one, or remove it."
    )


def test_a_changed_configuration_is_refused_before_anything_is_loaded(config, unfinished):
    """A missing model is not even looked for."""
    run = unfinished()
    before = files_of(run.folder)
    with pytest.raises(ResumeError) as caught:
        bs.finetune(config(max_steps=4, base_model="gone", seed=7), resume="auto")
    assert [line.partition(":")[0] for line in caught.value.changed] == ["base_model", "seed"]
    assert files_of(run.folder) == before


def test_an_older_checkpoint_leads_to_the_same_bits(config, unfinished):
    """Named by its path, with newer ones beside it."""
    run = unfinished()
    again = bs.finetune(config(max_steps=4), resume=run.folder / "checkpoints" / "step-000002")
    assert again.summary.weights_sha256 == run.summary.weights_sha256


@pytest.mark.parametrize("harm", ["removed", "changed"])
def test_a_finished_run_without_its_weights_writes_them_again(config, harm):
    """The last checkpoint has all that is needed."""
    run = bs.finetune(config(max_steps=2))
    if harm == "removed":
        shutil.rmtree(run.weights)
    else:
        (run.weights / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(StorageError, match=r"Write it again with `bedstone train CONFIG --resume auto`\."):
        bs.load_run(run.folder).generate("Say amber.")
    again = bs.finetune(config(max_steps=2), resume="auto")
    assert again.summary.weights_sha256 == run.summary.weights_sha256
    assert again.generate("Say amber.", max_new_tokens=2) is not None


def test_a_finished_run_without_its_report_gets_one(config):
    """The disk was full when it was to be written."""
    run = bs.finetune(config(max_steps=1))
    run.report.unlink()
    bs.finetune(config(max_steps=1), resume="auto")
    assert run.report.is_file()


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_use_dora": True},
        {"peft_use_rslora": True, "gradient_checkpointing": True},
        {"lora_modules_to_save": ["embed_tokens"]},
        {"adapter": "", "lora_r": ..., "lora_alpha": ..., "lora_dropout": ...},
        {"num_epochs": 2, "max_steps": ..., "micro_batch_size": 5, "gradient_accumulation_steps": 2, "save_steps": 1},
    ],
    ids=["dora", "rslora", "tied-embeddings", "full", "partial-window"],
)
def test_every_kind_of_run_resumes_to_the_same_bits(config, tmp_path, changes):
    """From a checkpoint in the middle, with nothing of the first process left in memory but the seed."""
    values = {"max_steps": 4, **changes}
    whole = bs.finetune(config(output_dir=str(tmp_path / "whole"), **values))
    run = bs.finetune(config(**values))
    (run.folder / "summary.json").unlink()
    again = bs.finetune(config(**values), resume=Path(run.folder, "checkpoints", "step-000002"))
    assert again.summary.weights_sha256 == whole.summary.weights_sha256
