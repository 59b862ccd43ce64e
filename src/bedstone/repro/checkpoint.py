"""Checkpoints that are whole or absent: written beside, hashed, forced to the disk, and renamed into place.

Whatever instant the process or the power dies, the folder holds only complete checkpoints:

1. the files are written into a hidden folder beside the others, each fsynced, then the folder;
2. one rename publishes it as `step-000040`, and the parent folder is fsynced (`publish.py`);
3. only then are older checkpoints pruned, each hidden by a rename before its files go.

A step may be saved again, since a run that resumed does some steps twice: the same content is kept, other content, or a
damaged folder, is replaced.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bedstone.core.errors import InvalidConfigError, StorageError
from bedstone.core.events import Event, emit
from bedstone.repro.checkpoint_folder import (
    CheckpointError,
    CheckpointVersionError,
    FlatState,
    Index,
    flatten_state,
    read_folder,
    step_name,
    step_of,
    verify_folder,
    write_folder,
)
from bedstone.repro.files import check_free_space, make_folder
from bedstone.repro.publish import discard, put_in_place, remove_leftovers, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Generator

_SPARE_BYTES = 1 << 20  # headers, the index, and the file system's own blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDamaged(Event):
    """A checkpoint was found damaged and is not used: which, and what is wrong with it."""

    name: ClassVar[str] = "checkpoint_damaged"
    level: ClassVar[int] = logging.WARNING
    path: str
    reason: str

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return f"The checkpoint {self.path} is damaged and not used: {self.reason}."


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        path: Its folder.
        step: The step it was saved at.
        state: The tree as it was saved; every tensor on the CPU, in memory of its own.
    """

    path: Path
    step: int
    state: dict[str, Any]


class CheckpointStore:
    """A folder of checkpoints, one for each saved step.

    Making a store removes what dead writers left in the folder, if the folder exists and may be written to.

    Args:
        folder: The folder; made by the first `save`.
        keep: How many complete checkpoints stay, at least 1; `None` keeps all.

    Raises:
        InvalidConfigError: `keep` is not such a number.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = CheckpointStore(folder, keep=2)
    ...     for step in (10, 20, 30):
    ...         path = store.save(step, {"model": {"weight": torch.full((2,), float(step))}, "epoch": 1})
    ...     print([path.name for path in store.paths()])
    ...     print(store.latest().state)
    ['step-000020', 'step-000030']
    {'model': {'weight': tensor([30., 30.])}, 'epoch': 1}
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int | None = None) -> None:
        if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
            raise InvalidConfigError(
                f"`keep` (={keep!r}) must be an integer of at least 1, or None to keep all.",
                argument="keep",
                value=keep,
            )
        self.folder = Path(folder)
        self.keep = keep
        if self.folder.is_dir() and os.access(self.folder, os.W_OK):
            with _storage_errors(self.folder, "remove what an interrupted save left"):
                remove_leftovers(self.folder)

    def paths(self) -> tuple[Path, ...]:
        """Return the folders of all steps, oldest first, damaged ones too.

        Raises:
            StorageError: The store's folder cannot be read. One that does not exist is an empty store.
        """
        with _storage_errors(self.folder, "list the checkpoints"):
            entries = list(self.folder.iterdir()) if self.folder.is_dir() else []
            found = [(step_of(entry), entry) for entry in entries if entry.is_dir()]
        return tuple(entry for step, entry in sorted((step, entry) for step, entry in found if step is not None))

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write a checkpoint, publish it in one step, then prune.

        A complete checkpoint of the same step with the same content stays as it is; another is replaced.

        Args:
            step: The step, 0 or more.
            state: A tree by top-level key (see `flatten_state`); tensors of any device, dtype and strides.

        Returns:
            The checkpoint's folder.

        Raises:
            InvalidConfigError, UnsupportedError: The step or the state cannot be saved; nothing was written.
            CheckpointVersionError: The step is there in a newer format.
            StorageError: The disk is full or failed. Nothing half-written stays, every earlier checkpoint is as it was.
        """
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise InvalidConfigError(
                f"`step` (={step!r}) must be an integer of at least 0.", argument="step", value=step
            )
        flat, target = flatten_state(state), self.folder / step_name(step)
        with _storage_errors(target, "save the checkpoint", remedy="Earlier checkpoints are as they were."):
            make_folder(self.folder)
            remove_leftovers(self.folder)
            self._write(step, flat, target)
        self._prune(target)
        return target

    def latest(self) -> Checkpoint | None:
        """Load the newest good checkpoint; each damaged one on the way is said (`CheckpointDamaged`) and skipped.

        Returns:
            The checkpoint, or `None` when there is no good one.

        Raises:
            CheckpointVersionError: The newest good one has a newer format: going on from an older one would be silent.
            StorageError: The store's folder cannot be read.
        """
        for path in reversed(self.paths()):
            try:
                return self.load(path)
            except CheckpointVersionError:
                raise
            except CheckpointError as error:
                emit(CheckpointDamaged(path=str(path), reason=error.reason))
        return None

    def load(self, path: str | os.PathLike[str], *, verify: bool = True) -> Checkpoint:
        """Load one checkpoint, of this store or any other; its hashes are checked before any tensor is read.

        Args:
            path: Its folder.
            verify: False skips the hashes, not names and lengths.

        Raises:
            CheckpointVersionError: Its format is newer than this program's.
            CheckpointError: It is damaged, incomplete or not a checkpoint.
        """
        folder = Path(path)
        index, state = read_folder(folder, verify=verify)
        return Checkpoint(folder, index.step, state)

    def _write(self, step: int, state: FlatState, target: Path) -> None:
        check_free_space(self.folder, state.size_bytes + _SPARE_BYTES, doing=f"save step {step}")
        with temporary_folder(self.folder, target.name) as draft:
            _publish(draft, target, write_folder(draft, step, state))

    def _prune(self, published: Path) -> None:
        if self.keep is None:
            return
        complete = [path for path in self.paths() if _is_complete(path)]
        kept = {*complete[-self.keep :], published}
        oldest = min(step_of(path) or 0 for path in kept)
        for path in self.paths():
            # A damaged one among the kept steps stays for a person to look at, until its step is saved again.
            if path not in kept and (path in complete or (step_of(path) or 0) < oldest):
                with _storage_errors(path, "remove the old checkpoint"):
                    discard(path)


@contextmanager
def _storage_errors(path: Path, doing: str, *, remedy: str = "") -> Generator[None]:
    """Say what was being done to which path; an error that is ours already does."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError.from_os_error(error, path=path, doing=doing, remedy=remedy) from error


def _is_complete(path: Path) -> bool:
    try:
        verify_folder(path, hashes=False)
    except CheckpointVersionError:
        return True  # for the bedstone that wrote it
    except CheckpointError:
        return False
    return True


def _publish(draft: Path, target: Path, index: Index) -> None:
    """Publish `draft` as `target`; one that is there already, good and the same, is kept instead."""
    try:
        if target.exists() and verify_folder(target).files == index.files:
            return
    except CheckpointVersionError:
        raise
    except CheckpointError as error:
        emit(CheckpointDamaged(path=str(target), reason=error.reason))
    put_in_place(draft, target)
