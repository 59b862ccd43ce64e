"""The training loop: windows of batches in, optimizer steps out, everything that happens an event.

Three rules carry it. The loss of a step is the mean over all trained tokens of its window, so N micro-batches equal one
big batch however the tokens fall. The order of an epoch and the dropout of a step are functions of (seed, epoch) and
(seed, step), never of history, so a resumed run takes the same steps as one that never stopped, and an evaluation more
or less changes nothing. A stop happens between two steps only.
"""

from __future__ import annotations

import contextlib
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.events import Progress, TrainingStep, emit
from bedstone.core.torch_errors import translate_torch_errors
from bedstone.train.adapter import trainable
from bedstone.train.answer import answer
from bedstone.train.data import batch_order, collate, fixed_order, padding_id, train_loader
from bedstone.train.errors import TrainingDivergedError
from bedstone.train.events import CheckpointWritten, Evaluated, SampleAnswer
from bedstone.train.loss import loss_sum
from bedstone.train.session import Measured, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bedstone.train.data import Batch
    from bedstone.train.session import Session


def train(session: Session, bound: dict[str, Any]) -> None:
    """Take every remaining step, evaluating and saving on the way as the configuration says.

    Args:
        session: Loaded, at any step.
        bound: Goes into each checkpoint (see `snapshot`).

    Raises:
        StopRequested: A signal came; the session is between two steps.
        TrainingDivergedError: The loss or gradient is no number any more; the step was not taken.
        OutOfMemoryError: A step did not fit.
        StorageError: A checkpoint could not be written; earlier ones are good.
    """
    config = session.config
    session.model.train()
    for window in _windows(session):
        _step(session, window)
        last = session.step == session.total
        if config.eval_steps and session.step % config.eval_steps == 0 and not last:
            evaluate(session)
        if last or (config.save_steps and session.step % config.save_steps == 0):
            save(session, bound)
        session.stop.check()


def measure(session: Session) -> Measured:
    """Return the held-out loss and the answers to the sample prompts as they are now.

    Raises:
        StopRequested: A signal came.
    """
    return Measured(evaluate(session), sample(session))


def evaluate(session: Session) -> float | None:
    """Return the held-out loss in nats a token, `None` without held-out rows; the model's mode is put back."""
    if session.heldout is None:
        return None
    start, examples = time.perf_counter(), session.heldout.examples
    order = fixed_order(len(examples), session.config.eval_batch_size or session.config.micro_batch_size)
    total, tokens, training = 0.0, 0, session.model.training
    session.model.eval()
    try:
        for number, rows in enumerate(order):
            session.stop.check()
            emit(Progress(phase="Held-out loss", done=number, total=len(order), unit="batches"))
            batch = collate([examples[row] for row in rows], padding_id(session.tokenizer)).to(session.device)
            with torch.inference_mode(), _autocast(session):
                total += loss_sum(session.model, batch).item()
            tokens += batch.trained_tokens
    finally:
        session.model.train(training)
    emit(Progress(phase="Held-out loss", done=len(order), total=len(order), unit="batches"))
    loss = total / tokens
    emit(Evaluated(step=session.step, loss=loss, tokens=tokens, seconds=time.perf_counter() - start))
    return loss


def sample(session: Session) -> dict[str, str]:
    """Return the model's answer to each sample prompt."""
    answers: dict[str, str] = {}
    prompts = session.config.sample_prompts
    for number, prompt in enumerate(prompts):
        session.stop.check()
        emit(Progress(phase="Sample answers", done=number, total=len(prompts), unit="prompts"))
        with _autocast(session):
            answers[prompt] = answer(
                session.model,
                session.tokenizer,
                prompt,
                config=session.config,
                max_new_tokens=session.config.sample_max_new_tokens,
            )
        emit(SampleAnswer(step=session.step, prompt=prompt, answer=answers[prompt]))
    if prompts:
        emit(Progress(phase="Sample answers", done=len(prompts), total=len(prompts), unit="prompts"))
    return answers


def save(session: Session, bound: dict[str, Any]) -> None:
    """Write a checkpoint of the present step, unless the newest one is of this step already."""
    if session.saved_step == session.step:
        return
    start = time.perf_counter()
    path = session.store.save(session.step, snapshot(session, bound))
    session.saved_step = session.step
    size = sum(file.stat().st_size for file in path.iterdir())
    emit(CheckpointWritten(step=session.step, path=str(path), bytes=size, seconds=time.perf_counter() - start))


def _windows(session: Session) -> Iterator[list[Batch]]:
    """Yield the batches of each remaining step; resuming is slicing the order of its epoch."""
    config, examples = session.config, session.train.examples
    size = config.gradient_accumulation_steps
    step = session.step
    while step < session.total:
        epoch, done = divmod(step, session.steps_per_epoch)
        order = batch_order(len(examples), config.micro_batch_size, session.seeds, epoch)
        rest = order[done * size : (done + session.total - step) * size]
        pad = padding_id(session.tokenizer)
        loader = iter(
            train_loader(examples, rest, pad_id=pad, seeds=session.seeds, workers=config.dataloader_num_workers)
        )
        while window := list(islice(loader, size)):
            step += 1
            yield window


def _step(session: Session, window: list[Batch]) -> None:
    start, step = time.perf_counter(), session.step + 1
    tokens = sum(batch.trained_tokens for batch in window)
    total = 0.0
    with translate_torch_errors(doing=f"take step {step}", device=session.device):
        for number, batch in enumerate(window):
            # Dropout is keyed, not continued: the masks of this step never depend on what ran before it.
            torch.manual_seed(session.seeds.seed("dropout", step, number))
            with _autocast(session):
                loss = loss_sum(session.model, batch.to(session.device))
            (loss / tokens).backward()
            total += loss.item()
            del loss  # and with it the graph, before the next batch builds its own
        norm = _clip(session, total / tokens, step)
        lr = session.schedule.lr(step)
        for group in session.optimizer.param_groups:
            group["lr"] = lr
        session.optimizer.step()
        session.optimizer.zero_grad(set_to_none=True)
    session.step = step
    seconds = time.perf_counter() - start
    read = sum(int(batch.attention_mask.sum()) for batch in window)
    if step % session.config.logging_steps == 0 or step == session.total:
        emit(
            TrainingStep(
                step=step,
                total=session.total,
                loss=total / tokens,
                lr=lr,
                grad_norm=norm,
                tokens=read,
                seconds=seconds,
                tokens_per_s=read / seconds,
                memory_bytes=_peak_memory_bytes(session.device),
            )
        )


def _clip(session: Session, loss: float, step: int) -> float:
    parameters = list(trainable(session.model).values())
    limit = session.config.max_grad_norm or float("inf")
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
    if not (abs(loss) < float("inf") and norm < float("inf")):  # also false for NaN
        session.optimizer.zero_grad(set_to_none=True)
        raise TrainingDivergedError(
            f"Training diverged: at step {step} the loss is {loss} and the gradient norm {norm}. The step was not taken.",
            step=step,
            remedy=f"Lower `learning_rate` (={session.config.learning_rate}) or lengthen the warm-up; the checkpoints "
            "before this step are good.",
        )
    return norm


def _autocast(session: Session) -> contextlib.AbstractContextManager[Any]:
    if session.autocast_dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(session.device.type, dtype=session.autocast_dtype)


def _peak_memory_bytes(device: torch.device) -> int | None:
    """The peak so far: of the device's allocator, or of this process on a CPU (VmHWM: a child inherits `ru_maxrss`)."""
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None  # not Linux: the event leaves the field out
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), None)
