"""Where a packed model goes: a folder that is not there yet, or empty, on a disk that can take it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from bedstone.core.errors import StorageError
from bedstone.repro.files import check_free_space

_ROOM_BESIDE_WEIGHTS = 32 << 20  # tokenizer, report and config; SmolLM2's take 6 MiB


def check_destination(out: str | os.PathLike[str]) -> Path:
    """Return the folder, absolute, after a look at everything that could fail only when the work is done.

    Args:
        out: What the user named.

    Raises:
        StorageError: It is a file or a folder with something in it, or it could not be made there.
    """
    folder = Path(out).expanduser().absolute()
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise _taken(folder, "is not a folder")
        if folder.is_dir() and (content := sorted(entry.name for entry in folder.iterdir())):
            raise _taken(folder, f"is not empty: it holds {content[0]}{_more(len(content))}")
        _check_writable(folder)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError.from_os_error(error, path=folder, doing="look at the output folder") from error
    return folder


def check_room(folder: Path, weight_bytes: int) -> None:
    """Refuse a model that would not fit on the disk.

    Args:
        folder: What `check_destination` returned.
        weight_bytes: Size of the packed model.

    Raises:
        StorageError: Too little is free.
    """
    needed = weight_bytes + _ROOM_BESIDE_WEIGHTS
    try:
        check_free_space(_nearest_existing(folder), needed, doing="save the packed model")
    except StorageError as error:
        error.remedy = "Free some space, or name a folder on another disk."
        raise


def _taken(folder: Path, why: str) -> StorageError:
    message = f"The output folder {folder} {why}."
    return StorageError(message, path=folder, errno=errno.EEXIST, remedy="Name a new one; nothing is replaced.")


def _more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""


def _check_writable(folder: Path) -> None:
    parent = _nearest_existing(folder.parent)
    if not parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(parent))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(parent))


def _nearest_existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
