"""Whether a run may go on, and from where: the same configuration, model and data, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bedstone.core.events import emit
from bedstone.kernels import why_not_again
from bedstone.repro import CheckpointStore, sha256_file
from bedstone.train.config import config_hash, hashed_values
from bedstone.train.errors import ResumeError
from bedstone.train.events import ResumeDiffers
from bedstone.train.export import weights_file
from bedstone.train.session import conditions
from bedstone.train.setup import describe_data, describe_model

if TYPE_CHECKING:
    import os

    from bedstone.repro import Checkpoint
    from bedstone.train.config import TrainConfig
    from bedstone.train.folder import RunFolder, Summary
    from bedstone.train.models import ModelSource
    from bedstone.train.session import Session

AUTO = "auto"
_ELSEWHERE = "set another `output_dir`, or remove the folder if you no longer need it."


def finished(folder: RunFolder, config: TrainConfig, resume: str | os.PathLike[str] | None) -> Summary | None:
    """Return the summary when this very run is complete and `resume` is "auto"; refuse a folder that holds another.

    A start that never got as far as a checkpoint leaves nothing to lose: the same command may be given again.

    Raises:
        ResumeError: The folder holds a run that would be overwritten.
    """
    summary = folder.read_summary()
    if resume is None:
        if summary is not None:
            raise ResumeError(f"{folder.path} holds a finished run; nothing was touched.", remedy=_sentence(_ELSEWHERE))
        if CheckpointStore(folder.checkpoints).paths():
            message = f"{folder.path} holds an unfinished run; nothing was touched."
            raise ResumeError(message, remedy=f"Go on with `--resume auto`, {_ELSEWHERE}")
        return None
    if summary is not None and summary.config_hash != config_hash(config):
        message = f"{folder.path} holds a finished run of another configuration; nothing was touched."
        raise ResumeError(message, remedy=_sentence(_ELSEWHERE))
    return summary if str(resume) == AUTO and summary is not None and _is_whole(folder, config, summary) else None


def ties(session: Session, source: ModelSource) -> dict[str, Any]:
    """Return what ties a checkpoint to its run, by top-level key of its state: configuration, model, data, conditions."""
    return {
        "config_hash": config_hash(session.config),
        "config": hashed_values(session.config),
        "model": describe_model(source),
        "data": describe_data(session),
        "conditions": conditions(session.device),
    }


def find_checkpoint(
    store: CheckpointStore, resume: str | os.PathLike[str] | None, config: TrainConfig
) -> Checkpoint | None:
    """Return the checkpoint to go on from, of the same configuration; called before anything is loaded.

    Args:
        store: The run's checkpoints.
        resume: `None` for a new run, "auto" for the newest good checkpoint if there is one, or a checkpoint's path.
        config: What this run is told.

    Raises:
        CheckpointError: The named checkpoint is damaged.
        ResumeError: The path is no checkpoint, or the checkpoint belongs to another configuration; lists what changed.
    """
    if resume is None:
        return None
    checkpoint = store.latest() if str(resume) == AUTO else _named(store, Path(resume))
    if checkpoint is None:
        return None
    if not checkpoint.state.keys() >= {"config", "model", "data", "conditions"}:
        message = f"The checkpoint {checkpoint.path} is of no fine-tuning run; nothing was touched."
        raise ResumeError(message, remedy="Name another one, or remove it.")
    _refuse_changes(checkpoint, {"config": hashed_values(config)})
    return checkpoint


def check_same_run(checkpoint: Checkpoint, bound: dict[str, Any]) -> None:
    """Refuse a checkpoint of another model or other data; say when only the conditions differ.

    Args:
        checkpoint: From `find_checkpoint`.
        bound: What this run's `ties` are.

    Raises:
        ResumeError: Lists what changed.
    """
    _refuse_changes(checkpoint, {part: bound[part] for part in ("model", "data")})
    if differences := _changes(checkpoint.state["conditions"], bound["conditions"]):
        emit(ResumeDiffers(differences="; ".join(differences)))


def replayed_kernels(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Return the kernels that a checkpoint's run chose and that can be taken again; say which cannot, and why.

    Args:
        checkpoint: From `find_checkpoint`; one that an earlier version wrote kept none.
    """
    replayed, lost = [], []
    for record in checkpoint.state.get("kernels", []):
        reason = why_not_again(record)
        (lost if reason else replayed).append(
            record if not reason else f"{record['op']} by {record['implementation']}: {reason}"
        )
    if lost:
        emit(ResumeDiffers(differences="; ".join(dict.fromkeys(lost))))
    return replayed


def _is_whole(folder: RunFolder, config: TrainConfig, summary: Summary) -> bool:
    """Whether the trained weights are still those that the summary tells of; if not, the last steps write them again."""
    weights = folder.weights(adapter=config.adapter is not None)
    return weights.is_dir() and sha256_file(weights_file(weights)) == summary.weights_sha256


def _named(store: CheckpointStore, path: Path) -> Checkpoint:
    if not (path / "index.json").is_file():
        known = store.paths()
        example = f", or name a checkpoint such as {known[-1]}" if known else ""
        raise ResumeError(f"`--resume {path}`: that is no checkpoint.", remedy=f"Write `--resume auto`{example}.")
    return store.load(path)


def _refuse_changes(checkpoint: Checkpoint, bound: dict[str, Any]) -> None:
    changed = [line for part, now in bound.items() for line in _changes(checkpoint.state[part], now)]
    if changed:
        raise ResumeError(
            f"The checkpoint {checkpoint.path} is of another run; nothing was touched. Changed: {'; '.join(changed)}.",
            changed=changed,
            remedy=f"Take the change back to go on, or start anew: {_ELSEWHERE}",
        )


def _changes(old: Any, new: Any, path: str = "") -> list[str]:
    """Return `key: old -> new` for every leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [line for key in keys for line in _changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)]
    return [] if old == new else [f"{path}: {old} -> {new}"]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
