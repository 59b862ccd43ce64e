"""Folders that appear whole, are replaced whole and disappear whole, whatever instant the process dies.

A folder is written under a hidden name, `.tmp-<name>-<random>`, and takes its own name by a rename. If that name is taken,
the two are exchanged in one step; where a file system cannot do that, the earlier folder is first renamed to
`.old-<name>-<random>`, and put back by `remove_leftovers` if the process dies right then. A folder to be removed is hidden
first, so that nobody meets it half empty.

What a dead process left is told from the work of a living one by a lock on the hidden folder, not by age or process
number: the kernel releases the lock with the process.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bedstone.repro.files import exchange, fsync_folder, remove
from bedstone.repro.lock import Claim, claim

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_TEMPORARY, _REPLACED = ".tmp-", ".old-"


@contextmanager
def temporary_folder(parent: Path, name: str) -> Generator[Path]:
    """Make a locked hidden folder beside `name`; what has that name at the end of the block is removed.

    After `put_in_place` that is nothing, or the folder that was replaced.

    Args:
        parent: An existing folder.
        name: The name it will be published under.

    Raises:
        OSError: As the operating system says.
    """
    draft, held = _new_draft(parent, name)
    try:
        yield draft
    finally:
        try:
            remove(draft)
        finally:
            held.release()


def put_in_place(draft: Path, target: Path) -> None:
    """Give `draft` the name `target` and force it to the disk; what had that name is then called `draft`, or gone.

    Args:
        draft: A complete folder, each file of it on the disk.
        target: A name in the same folder, free or taken.

    Raises:
        OSError: As the operating system says; `target` is then what it was.
    """
    if not os.path.lexists(target):
        draft.rename(target)
    elif not exchange(draft, target):
        _put_in_place_in_two_steps(draft, target)
    fsync_folder(target.parent)


def discard(folder: Path) -> None:
    """Remove a published folder; a process that dies meanwhile leaves a hidden rest, never half of it under its name.

    Raises:
        OSError: As the operating system says.
    """
    hidden = _hidden(_TEMPORARY, folder)
    folder.rename(hidden)
    remove(hidden)


def remove_leftovers(parent: Path) -> None:
    """Remove the hidden folders of dead processes, and put back what one had moved aside and not yet replaced.

    Args:
        parent: The folder of the published ones.

    Raises:
        OSError: As the operating system says.
    """
    for entry in sorted(parent.iterdir()):  # `.old-` before `.tmp-`
        if not entry.name.startswith((_REPLACED, _TEMPORARY)):
            continue
        held = _claim(entry)
        if held is not None:
            _settle(entry)
            held.release()


def _put_in_place_in_two_steps(draft: Path, target: Path) -> None:
    aside = _hidden(_REPLACED, target)
    held = _claim(target)  # so that no other process puts it back between the two renames
    if held is None:
        raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(target))
    try:
        target.rename(aside)
        draft.rename(target)
    finally:
        if os.path.lexists(aside):
            _settle(aside)
        held.release()


def _settle(leftover: Path) -> None:
    if leftover.name.startswith(_REPLACED):
        target = leftover.with_name(leftover.name.removeprefix(_REPLACED).rpartition("-")[0])
        if not os.path.lexists(target):
            leftover.rename(target)
            return
    remove(leftover)


def _new_draft(parent: Path, name: str) -> tuple[Path, Claim]:
    while True:
        draft = _hidden(_TEMPORARY, parent / name)
        draft.mkdir()
        held = _claim(draft)
        if held is not None and held.still_named():
            return draft, held
        # Another process took it for a leftover between its making and its locking.
        if held is not None:
            held.release()


def _hidden(prefix: str, path: Path) -> Path:
    return path.with_name(f"{prefix}{path.name}-{secrets.token_hex(4)}")


def _claim(path: Path) -> Claim | None:
    try:
        return claim(path, os.O_RDONLY)
    except FileNotFoundError:  # another process has just removed it
        return None
