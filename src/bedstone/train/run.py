"""A whole run: `finetune` from configuration to finished folder, `load_run` for one that lies there."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import InvalidConfigError, StorageError
from bedstone.core.events import JsonlSink, emit, sink
from bedstone.kernels import chosen_kernels, forget_choices, pinned, policy
from bedstone.repro import CheckpointStore, RunLock, manifest, write_json_atomic
from bedstone.train.adapter import load_adapter, trainable
from bedstone.train.answer import answer
from bedstone.train.config import (
    TrainConfig,
    base_quantization,
    config_hash,
    dump_effective,
    load_config,
    parse_config,
)
from bedstone.train.errors import InterruptedRunError
from bedstone.train.events import RunFinished, RunInterrupted, RunStarted
from bedstone.train.export import export
from bedstone.train.folder import Answer, RunFolder, Summary
from bedstone.train.loop import measure, save, train
from bedstone.train.models import load_model, load_tokenizer, locate
from bedstone.train.report import write_report
from bedstone.train.resume import check_same_run, find_checkpoint, finished, replayed_kernels, ties
from bedstone.train.session import restore
from bedstone.train.setup import choose_device, prepare
from bedstone.train.signals import StopRequested, stop_on_signals

if TYPE_CHECKING:
    import os
    from collections.abc import Generator

    from bedstone.core.events import Event
    from bedstone.repro import Checkpoint
    from bedstone.train.session import Measured, Session


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where everything lies (see `bedstone.train.folder`).
        config: What it was told.
        summary: What came of it.
    """

    folder: Path
    config: TrainConfig
    summary: Summary

    @property
    def weights(self) -> Path:
        """The trained weights: `adapter/` in peft's format, or `model/` after full fine-tuning."""
        return RunFolder(self.folder).weights(adapter=self.config.adapter is not None)

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder, `None` after full fine-tuning."""
        return self.weights if self.config.adapter is not None else None

    @property
    def report(self) -> Path:
        """The page for people."""
        return RunFolder(self.folder).report

    def generate(self, prompt: str, *, max_new_tokens: int = 128) -> str:
        """Return the trained model's greedy answer; the model is loaded at the first call and kept.

        Args:
            prompt: A question as a user would type it; not empty.
            max_new_tokens: Where to stop at the latest, at least 1.

        Raises:
            InvalidConfigError: The prompt is empty or the number too small.
            ModelLoadError: The base model is gone.
        """
        if not prompt.strip():
            raise InvalidConfigError("`prompt` must not be empty.", argument="prompt", value=prompt)
        if max_new_tokens < 1:
            message = f"`max_new_tokens` (={max_new_tokens}) must be at least 1."
            raise InvalidConfigError(message, argument="max_new_tokens", value=max_new_tokens)
        model, tokenizer = self._loaded
        return answer(model, tokenizer, prompt, config=self.config, max_new_tokens=max_new_tokens)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        config, device = self.config, choose_device(self.config)
        source = locate(config.base_model if config.adapter else str(self.weights))
        model = load_model(
            source,
            dtype=torch.float32,
            device=device,
            trust_remote_code=config.trust_remote_code,
            quantization=base_quantization(config),
        )
        if config.adapter:
            model = load_adapter(model, str(self.weights)).to(device)
        return model.eval(), load_tokenizer(source, trust_remote_code=config.trust_remote_code)


def finetune(
    config: str | os.PathLike[str] | Mapping[str, Any] | TrainConfig, *, resume: str | os.PathLike[str] | None = None
) -> Run:
    r"""Fine-tune a model on text and leave a folder that says everything about it.

    Args:
        config: A YAML file, a dictionary with the same keys, or a `TrainConfig`; keys in `docs/reference/config.md`.
        resume: `"auto"` goes on from the newest good checkpoint of `output_dir` (afresh when there is none, and nothing
            to do when the run is finished); a path goes on from that checkpoint. On the machine that wrote the
            checkpoint, the result is bit for bit that of the run that never stopped.

    Returns:
        The finished run.

    Raises:
        InvalidConfigError: The configuration or data cannot be; before anything is loaded.
        DeviceNotAvailableError, ModelLoadError, ResumeError, StorageError: As their names say; nothing is lost.
        InterruptedRunError: Ctrl-C, SIGTERM or a closed terminal; after the first step, a checkpoint was written.

    >>> import tempfile
    >>> from bedstone.testing import save_tiny_model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = save_tiny_model(f"{folder}/tiny")
    ...     _ = Path(f"{folder}/rows.jsonl").write_text('{"instruction": "Say hi.", "output": "hi"}\n' * 4)
    ...     run = finetune({
    ...         "base_model": f"{folder}/tiny", "adapter": "lora", "max_steps": 2, "device": "cpu",
    ...         "datasets": [{"type": "alpaca", "path": f"{folder}/rows.jsonl"}], "output_dir": f"{folder}/run",
    ...     })
    ...     print(run.summary.steps, (run.weights / "adapter_model.safetensors").exists())
    2 True
    """
    config = config if isinstance(config, (Mapping, TrainConfig)) else load_config(config)
    config = parse_config(config)
    folder = RunFolder(Path(config.output_dir))
    folder.refuse_foreign()
    folder.make()
    with RunLock(folder.path):
        if done := finished(folder, config, resume):
            if not folder.report.exists():  # the disk was full when it was to be written
                write_report(folder.path)
            return Run(folder.path, config, done)
        noticed: list[Event] = []  # a refusal to resume leaves no trace in the run's files
        with sink(noticed.append):
            checkpoint = find_checkpoint(CheckpointStore(folder.checkpoints), resume, config)
        chosen = nullcontext() if config.kernels == "auto" else policy(config.kernels)
        with _recorded(folder, noticed), chosen:
            summary = _train(config, folder, checkpoint)
        return Run(folder.path, config, summary)


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Return the finished run that lies in a folder.

    Raises:
        StorageError: There is no finished run.

    >>> load_run("runs/none-here")
    Traceback (most recent call last):
    bedstone.core.errors.StorageError: runs/none-here holds no run: config.yaml is missing. Name a folder that `bedstone train` wrote.
    """
    run = RunFolder(Path(folder))
    if not run.config.is_file():
        message = f"{folder} holds no run: config.yaml is missing."
        raise StorageError(message, path=folder, remedy="Name a folder that `bedstone train` wrote.")
    summary = run.read_summary()
    if summary is None:
        message = f"The run in {folder} is not finished."
        raise StorageError(message, path=folder, remedy="Finish it with `bedstone train CONFIG --resume auto`.")
    return Run(run.path, load_config(run.config), summary)


def _train(config: TrainConfig, folder: RunFolder, checkpoint: Checkpoint | None) -> Summary:
    start = time.perf_counter()
    forget_choices()  # what is kept of them is this run's
    session, source = prepare(config, folder)
    bound = ties(session, source)
    kernels: list[dict[str, Any]] = []
    if checkpoint is not None:
        check_same_run(checkpoint, bound)
        kernels = replayed_kernels(checkpoint)
        restore(session, checkpoint.state)
        checkpoint.state.clear()  # its tensors take as much memory as all that is trained
    _write_papers(session, folder, bound)
    with stop_on_signals(session.stop), pinned(kernels):
        _announce(session)
        try:
            if not session.step:
                session.before = measure(session)
            train(session, bound)
            after = measure(session)
        except StopRequested:
            raise _interrupted(session, bound, folder) from None
        return _finish(session, folder, after, time.perf_counter() - start)


def _write_papers(session: Session, folder: RunFolder, bound: dict[str, Any]) -> None:
    config = session.config
    try:
        folder.config.write_text(dump_effective(config), encoding="utf-8")
    except OSError as error:
        raise StorageError.from_os_error(error, path=folder.config, doing="write the configuration") from error
    described = {"model": bound["model"], **bound["data"]}
    papers = manifest(config=config.model_dump(mode="json"), data=described, seeds={"run": config.seed})
    write_json_atomic(
        folder.manifest, papers | {"conditions": bound["conditions"], "config_hash": bound["config_hash"]}
    )


def _announce(session: Session) -> None:
    emit(
        RunStarted(
            run=session.name,
            base_model=session.config.base_model,
            device=str(session.device),
            steps=session.total,
            epochs=session.total / session.steps_per_epoch,
            parameters=sum(p.numel() for p in session.model.parameters()),
            trainable_parameters=sum(p.numel() for p in trainable(session.model).values()),
            resumed_from_step=session.step,
        )
    )


def _finish(session: Session, folder: RunFolder, after: Measured, seconds: float) -> Summary:
    config = session.config
    target = folder.weights(adapter=config.adapter is not None)
    digest = export(session.model, session.tokenizer, target)
    summary = Summary(
        steps=session.step,
        seconds=seconds,
        loss_before=session.before.loss,
        loss_after=after.loss,
        weights=target.name,
        weights_sha256=digest,
        config_hash=config_hash(config),
        answers=tuple(Answer(asked, session.before.answers.get(asked), said) for asked, said in after.answers.items()),
    )
    emit(
        RunFinished(
            step=session.step,
            seconds=seconds,
            loss_before=session.before.loss,
            loss_after=after.loss,
            adapter=str(target),
        )
    )
    _add_kernels(folder)
    folder.write_summary(summary)
    return summary


def _add_kernels(folder: RunFolder) -> None:
    """Note in the manifest which implementation each operation took, which only the run itself could tell."""
    papers = json.loads(folder.manifest.read_text(encoding="utf-8"))
    write_json_atomic(folder.manifest, papers | {"kernels": chosen_kernels()})


def _interrupted(session: Session, bound: dict[str, Any], folder: RunFolder) -> InterruptedRunError:
    number = session.stop.signal
    assert number is not None
    if session.step:
        save(session, bound)
    path = folder.checkpoints / f"step-{session.step:06d}" if session.step else None
    emit(RunInterrupted(step=session.step, signal=number.name, checkpoint=str(path or "")))
    kept = f"A checkpoint is in {path}." if path else "No step was taken yet, nothing is lost."
    return InterruptedRunError(
        f"Stopped by {number.name} after step {session.step} of {session.total}. {kept}",
        signal=number,
        step=session.step,
        checkpoint=path,
        remedy="Run the same command with `--resume auto` to go on.",
    )


@contextmanager
def _recorded(folder: RunFolder, noticed: list[Event]) -> Generator[None]:
    """Write `noticed` and every event of the block to the run's file, and the report at its end, however it ends."""
    file = JsonlSink(folder.events)
    try:
        for event in noticed:
            file(event)
        with sink(file):
            yield
        file.close()
    except Exception as error:
        # The page about a run that failed must not hide why it failed, on a full disk above all.
        try:
            file.close()
            write_report(folder.path)
        except StorageError as other:
            error.add_note(f"Besides: {other}")
        raise
    write_report(folder.path)
