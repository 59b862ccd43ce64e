"""Files that are there whole or not at all, also after a power cut.

The order is what makes it true: write a new file under another name, fsync it (its bytes are on the disk), rename it (one
step for every reader), fsync the folder (the new name is on the disk). A hash is taken while writing, not by reading
again.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import InvalidConfigError, StorageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

_CHUNK_BYTES = 1 << 20
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # from Linux's fcntl.h and fs.h


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a file must hold: its length in bytes and the SHA-256 of its content, 64 hexadecimal digits."""

    bytes: int
    sha256: str


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits; reads it in pieces of 1 MiB.

    Args:
        path: The file.

    Raises:
        StorageError: The file cannot be read.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     sha256_file(file.name)[:16]
    'e3b0c44298fc1c14'
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - any path-like
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError.from_os_error(error, path=path, doing="read the file") from error


def json_bytes(value: Any, *, indent: int | None = None) -> bytes:
    r"""Return `value` as strict JSON in UTF-8 with a newline at its end; any Python string comes back as it was.

    Raises:
        InvalidConfigError: A part has no JSON form, or a float is not finite.

    >>> json_bytes({"note": "grün"}).decode()
    '{"note": "grün"}\n'
    """
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidConfigError(f"The value has no JSON form: {error}.", argument="value", value=value) from error
    # A lone surrogate (from an undecodable file name) has no UTF-8; its backslash form is its JSON escape.
    return (text + "\n").encode("utf-8", "backslashreplace")


def write_new_file(path: Path, pieces: Iterable[bytes | memoryview]) -> FileRecord:
    """Write a file that must not exist yet, force it to the disk, and return its length and hash.

    Args:
        path: The file; its folder must exist.
        pieces: Its content, in order.

    Raises:
        OSError: As the operating system says; the caller knows what the file is for.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(size, digest.hexdigest())


def write_json_atomic(path: str | os.PathLike[str], value: Any) -> None:
    r"""Write `value` as indented JSON so that a reader, or a restart after a power cut, sees the old file or the new one.

    Args:
        path: The file; replaced when it exists. Its folder must exist.
        value: Anything the `json` module writes, floats finite.

    Raises:
        InvalidConfigError: The value has no JSON form; nothing was written.
        StorageError: The file cannot be written; an earlier one is as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json_atomic(Path(folder) / "a.json", {"step": 40})
    ...     (Path(folder) / "a.json").read_text()
    '{\n  "step": 40\n}\n'
    """
    target, content = Path(path), json_bytes(value, indent=2)
    try:
        with replacing(target) as draft:
            write_new_file(draft, [content])
    except OSError as error:
        raise StorageError.from_os_error(error, path=target, doing="write the file") from error


@contextlib.contextmanager
def replacing(target: Path) -> Generator[Path]:
    """Yield a free name beside `target`; the file that the block writes there takes the name of `target` at its end.

    When the block fails, its file is removed and `target` is what it was.

    Args:
        target: A file, there or not; its folder must exist. The block forces its file to the disk, as `write_new_file` does.

    Raises:
        OSError: As the operating system says.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.bin") as draft:
    ...         record = write_new_file(draft, [b"new"])
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['a.bin']
    """
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield draft
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    fsync_folder(target.parent)


def fsync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk: without it a rename may be lost in a power cut.

    Raises:
        OSError: As the operating system says.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each name forced to the disk; one that exists is left alone.

    Raises:
        OSError: As the operating system says.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def check_free_space(folder: Path, needed_bytes: int, *, doing: str) -> None:
    """Refuse work that would not fit on the disk, before it writes anything.

    Args:
        folder: An existing folder on that disk.
        needed_bytes: What will be written.
        doing: What for, as in `save step 40`.

    Raises:
        StorageError: Fewer bytes are free for this user; `errno` is ENOSPC, `needed_bytes` and `free_bytes` say how many.
        OSError: The folder cannot be examined.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise StorageError(
            f"Could not {doing} at {folder}: {needed_bytes:,} bytes are needed and {free_bytes:,} are free.",
            path=folder,
            errno=errno.ENOSPC,
            remedy="Free some space, or keep fewer checkpoints.",
            needed_bytes=needed_bytes,
            free_bytes=free_bytes,
        )


def exchange(first: Path, second: Path) -> bool:
    """Swap the names of two existing files or folders in one step, so that neither name is ever missing.

    Returns:
        True when done; False when this system or file system cannot (it is a Linux call, and not every network file
        system has it), and nothing was changed.

    Raises:
        OSError: The call is there and failed.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
        return False
    raise OSError(code, os.strerror(code), str(second))


def remove(path: Path) -> None:
    """Remove a folder with all it holds, or a file or link; one that is already gone is fine.

    Raises:
        OSError: Something in it cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
