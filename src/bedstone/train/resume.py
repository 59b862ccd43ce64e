"""Whether a run may go on, and from where: the same configuration, model and data, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bedstone.core.events import emit
from bedstone.train.config import config_hash
from bedstone.train.errors import ResumeError
from bedstone.train.events import ResumeDiffers

if TYPE_CHECKING:
    import os

    from bedstone.repro import Checkpoint, CheckpointStore
    from bedstone.train.config import TrainConfig
    from bedstone.train.folder import RunFolder, Summary

_ELSEWHERE = "Set another `output_dir`, or remove the folder if you no longer need it."


def finished(folder: RunFolder, config: TrainConfig, resume: str | os.PathLike[str] | None) -> Summary | None:
    """Return the summary when this very run is complete and `resume` is "auto"; refuse a folder that holds another.

    Raises:
        ResumeError: The folder holds a run that would be overwritten.
    """
    summary = folder.read_summary()
    if resume is None:
        if folder.events.exists():
            state = "a finished run" if summary else "an unfinished run"
            go_on = "" if summary else "Go on with `--resume auto`. "
            raise ResumeError(f"{folder.path} holds {state}; nothing was touched.", remedy=go_on + _ELSEWHERE)
        return None
    if summary is not None and summary.config_hash != config_hash(config):
        message = f"{folder.path} holds a finished run of another configuration; nothing was touched."
        raise ResumeError(message, remedy=_ELSEWHERE)
    return summary if str(resume) == "auto" else None


def find_checkpoint(
    store: CheckpointStore, resume: str | os.PathLike[str] | None, bound: dict[str, Any]
) -> Checkpoint | None:
    """Return the checkpoint to go on from, checked to be of this run.

    Args:
        store: The run's checkpoints.
        resume: `None` for a new run, `"auto"` for the newest good checkpoint if there is one, or a checkpoint's path.
        bound: What this run would tie its checkpoints to.

    Raises:
        CheckpointError: The named checkpoint is damaged.
        ResumeError: It belongs to another configuration, model or data; lists what changed.
    """
    if resume is None:
        return None
    checkpoint = store.latest() if str(resume) == "auto" else store.load(Path(resume))
    if checkpoint is None:
        return None
    changed = [line for part in ("config", "model", "data") for line in _changes(checkpoint.state[part], bound[part])]
    if changed:
        raise ResumeError(
            f"The checkpoint {checkpoint.path} is of another run; nothing was touched. Changed: {'; '.join(changed)}.",
            changed=changed,
            remedy=f"Take the change back to go on, or start anew: {_ELSEWHERE[0].lower()}{_ELSEWHERE[1:]}",
        )
    if differences := _changes(checkpoint.state["conditions"], bound["conditions"]):
        emit(ResumeDiffers(differences="; ".join(differences)))
    return checkpoint


def _changes(old: Any, new: Any, path: str = "") -> list[str]:
    """Return `key: old -> new` for every leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [line for key in keys for line in _changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)]
    return [] if old == new else [f"{path}: {old} -> {new}"]
