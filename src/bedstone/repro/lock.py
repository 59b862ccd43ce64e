"""One run a folder: a lock that the kernel holds, so that it ends with its process, however that ends.

A file that merely exists would outlive a `kill -9` and block the next run; a process number in it may belong to somebody
else by then. `flock` has neither fault. One trap is left: a forked child (a DataLoader worker) inherits the lock and
would keep it after its parent was killed, so children close their copy when they are born.
"""

from __future__ import annotations

import fcntl
import os
import socket
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bedstone.core.errors import StorageError
from bedstone.repro.files import make_folder

if TYPE_CHECKING:
    from types import TracebackType

_claims: weakref.WeakSet[Claim] = weakref.WeakSet()
_children_forget = False


class Claim:
    """An exclusive `flock` on a file or folder, from `claim` until `release` or the end of the process."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self.handle: int | None = handle

    def release(self) -> None:
        """Give the lock back; does nothing the second time, and nothing in a forked child."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None

    def still_named(self) -> bool:
        """Tell whether the path still leads to what was locked: somebody may have removed it in between."""
        assert self.handle is not None
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.handle))
        except FileNotFoundError:
            return False


def claim(path: Path, flags: int) -> Claim | None:
    """Open `path` and lock it.

    Args:
        path: A file or folder.
        flags: For `os.open`.

    Returns:
        The claim, or `None` when another process, or another claim of this one, holds it.

    Raises:
        OSError: It cannot be opened, or its file system has no locks.
    """
    handle = os.open(path, flags, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    claimed = Claim(path, handle)
    _let_children_forget()
    _claims.add(claimed)
    return claimed


def _let_children_forget() -> None:
    global _children_forget  # noqa: PLW0603 - a hook of the process, which cannot be taken back
    if not _children_forget:
        os.register_at_fork(after_in_child=_forget_in_child)
        _children_forget = True


def _forget_in_child() -> None:
    for inherited in list(_claims):
        inherited.release()


class RunLock:
    r"""A context manager that holds a folder for one run, through the file `.lock` in it.

    The file names the holder's process and host for people. It stays when the lock is released, since removing it would
    let two processes hold two files of the same name.

    Args:
        folder: The run's folder; made when missing.

    Raises:
        StorageError: On entering: another process, or this one, holds the folder (`pid` and `host` say who), or the
            file cannot be made or locked.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, RunLock(folder):
    ...     (Path(folder) / ".lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    True
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / ".lock"
        self._claim: Claim | None = None

    def __enter__(self) -> Self:
        try:
            make_folder(self.folder)
            taken = claim(self.path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StorageError.from_os_error(error, path=self.path, doing="lock the run folder") from error
        if taken is None:
            raise self._in_use()
        self._claim = taken
        self._sign(taken)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def _sign(self, taken: Claim) -> None:
        assert taken.handle is not None
        try:
            os.ftruncate(taken.handle, 0)
            os.write(taken.handle, f"{os.getpid()} {socket.gethostname()}\n".encode())
        except OSError as error:
            self.__exit__(None, None, None)
            raise StorageError.from_os_error(error, path=self.path, doing="lock the run folder") from error

    def _in_use(self) -> StorageError:
        pid, host = self._holder()
        if pid == os.getpid() and host == socket.gethostname():
            who, remedy = f"this process ({pid})", "Finish that run first, or choose another folder."
        elif pid is None:
            who, remedy = "another process", "Wait for that run to end, or choose another folder."
        else:
            who = f"process {pid} on {host}"
            remedy = f"Wait for that run to end, stop it with `kill {pid}`, or choose another folder."
        return StorageError(
            f"The run folder {self.folder} is in use by {who}.", path=self.folder, remedy=remedy, pid=pid, host=host
        )

    def _holder(self) -> tuple[int | None, str | None]:
        # Empty for the instant between locking and writing.
        words = self.path.read_text(encoding="utf-8", errors="replace").split()
        return (int(words[0]), words[1]) if len(words) == 2 and words[0].isdecimal() else (None, None)  # noqa: PLR2004
