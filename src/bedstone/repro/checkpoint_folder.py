"""One checkpoint on the disk: a folder of safetensors and JSON that proves its own integrity.

    step-000040/
      index.json               format, version, step, and length and SHA-256 of every other file; its own hash too
      state.json               everything that is not a tensor, and where each tensor belongs
      model.safetensors        one file for each top-level key that holds tensors
      optimizer.safetensors

Nothing in it is executed when it is read: no pickle. `model.safetensors` opens in any tool that reads the format.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from bedstone.core.errors import InvalidConfigError, StorageError
from bedstone.repro.files import FileRecord, fsync_folder, json_bytes, sha256_file, write_new_file
from bedstone.repro.fingerprint import fingerprint
from bedstone.repro.tensor_file import check_tensors, read_tensors, write_tensors
from bedstone.repro.tree import FlatTree, Tree, flatten, unflatten

if TYPE_CHECKING:
    import os
    from pathlib import Path

FORMAT, VERSION = "bedstone-checkpoint", 1
INDEX, STATE = "index.json", "state.json"
_FILE_STEM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def step_name(step: int) -> str:
    """Return the name of a step's folder.

    >>> step_name(40)
    'step-000040'
    """
    return f"step-{step:06d}"


def step_of(folder: Path) -> int | None:
    """Return the step that a folder's name says, or `None` when the name is not one of ours.

    >>> from pathlib import Path
    >>> step_of(Path("runs/step-000040")), step_of(Path("runs/step-40"))
    (40, None)
    """
    digits = folder.name.removeprefix("step-")
    if digits.isdecimal() and folder.name == step_name(int(digits)):
        return int(digits)
    return None


class CheckpointError(StorageError):
    """A checkpoint that is damaged, incomplete, or not a checkpoint; `path` is its folder, `reason` says what is wrong.

    >>> raise CheckpointError(path="step-000040", reason="`state.json` is missing")
    Traceback (most recent call last):
    bedstone.repro.checkpoint_folder.CheckpointError: The checkpoint step-000040 cannot be used: `state.json` is missing.
    """

    code = "checkpoint"
    reason: str

    def __init__(
        self,
        message: str = "",
        *,
        path: str | os.PathLike[str],
        reason: str = "",
        errno: int | None = None,
        remedy: str = "",
        **facts: Any,
    ) -> None:
        message = message or f"The checkpoint {path} cannot be used: {reason}."
        super().__init__(message, path=path, errno=errno, remedy=remedy, reason=reason or message, **facts)


class CheckpointVersionError(CheckpointError):
    """A checkpoint of a newer format: not damaged, so it is never skipped, replaced or silently resumed without."""

    code = "checkpoint_version"


@dataclass(frozen=True, slots=True)
class Index:
    """What `index.json` says: the step, and what each other file must hold."""

    step: int
    files: dict[str, FileRecord]


@dataclass(frozen=True, slots=True)
class FlatState:
    """A checkpoint's state ready to be written: the tensors of each file by its stem, and the rest as JSON bytes."""

    tensors: dict[str, dict[str, Any]]
    json: bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors and of the JSON, without the files' headers."""
        every = [tensor for table in self.tensors.values() for tensor in table.values()]
        return len(self.json) + sum(tensor.numel() * tensor.dtype.itemsize for tensor in every)


def flatten_state(state: dict[str, Tree]) -> FlatState:
    """Take a state apart into files, and refuse what a checkpoint cannot hold before anything is written.

    Args:
        state: A tree by top-level key; a key that holds tensors names a file.

    Raises:
        InvalidConfigError: The state is no dictionary with string keys, a key with tensors cannot be a file's name, or
            some part is of a type that `flatten` refuses.
        UnsupportedError: A tensor cannot be in a safetensors file.
    """
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise InvalidConfigError(
            "`state` must be a dictionary with string keys.", argument="state", value=type(state).__name__
        )
    flat = {key: flatten(tree, root=key) for key, tree in state.items()}
    tensors = {key: part.tensors for key, part in flat.items() if part.tensors}
    for key, table in tensors.items():
        if not _FILE_STEM.fullmatch(key):
            raise InvalidConfigError(
                f"The key {key!r} of `state` holds tensors, so it names a file: it must be 1 to 100 letters, digits, "
                "dots, dashes and underscores, and not start with a dot or dash.",
                argument="state",
                value=key,
            )
        check_tensors(table, file=key)
    return FlatState(tensors, json_bytes({key: part.json for key, part in flat.items()}))


def write_folder(folder: Path, step: int, state: FlatState) -> Index:
    """Write a checkpoint into an empty folder and force it to the disk; publishing it is the caller's business.

    Raises:
        OSError: As the operating system says.
    """
    files = {f"{key}.safetensors": write_tensors(folder / f"{key}.safetensors", t) for key, t in state.tensors.items()}
    files[STATE] = write_new_file(folder / STATE, [state.json])
    head = {
        "format": FORMAT,
        "version": VERSION,
        "step": step,
        "files": {name: {"bytes": record.bytes, "sha256": record.sha256} for name, record in sorted(files.items())},
    }
    write_new_file(folder / INDEX, [json_bytes(head | {"index_sha256": fingerprint(head)}, indent=2)])
    fsync_folder(folder)
    return Index(step, files)


def verify_folder(folder: Path, *, hashes: bool = True) -> Index:
    """Check a checkpoint without loading it: its index, and that every file is there, of its length and unchanged.

    Args:
        folder: A checkpoint.
        hashes: False looks at names and lengths only, which takes no time.

    Raises:
        CheckpointVersionError: Its format is newer than this program's.
        CheckpointError: A file is missing, too many, of another length, changed, or cannot be read; it is named.
    """
    index = _read_index(folder)
    try:
        found = {entry.name: entry.stat().st_size for entry in folder.iterdir()}
    except OSError as error:
        raise _unreadable(folder, "the folder", error) from error
    if extra := sorted(found.keys() - index.files.keys() - {INDEX}):
        raise CheckpointError(path=folder, reason=f"`{extra[0]}` does not belong to it")
    for name, record in index.files.items():
        if name not in found:
            raise CheckpointError(path=folder, reason=f"`{name}` is missing")
        if found[name] != record.bytes:
            raise CheckpointError(
                path=folder, reason=f"`{name}` has {found[name]:,} bytes and was written with {record.bytes:,}"
            )
    for name, record in index.files.items() if hashes else ():
        if _hash_of(folder, name) != record.sha256:
            raise CheckpointError(path=folder, reason=f"the content of `{name}` has changed (its SHA-256 differs)")
    return index


def read_folder(folder: Path, *, verify: bool = True) -> tuple[Index, dict[str, Tree]]:
    """Load a checkpoint: every tensor on the CPU, in memory of its own.

    Args:
        folder: A checkpoint.
        verify: False skips the hashes, not the names and lengths.

    Raises:
        CheckpointVersionError, CheckpointError: As for `verify_folder`, or a file is not what its format says.
    """
    index = verify_folder(folder, hashes=verify)
    try:
        content = json.loads((folder / STATE).read_bytes())
        return index, {key: unflatten(FlatTree(part, _table(folder, key, index))) for key, part in content.items()}
    except OSError as error:
        raise _unreadable(folder, "a file", error) from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(path=folder, reason=f"a file is not what its name says ({error})") from error


def _table(folder: Path, key: str, index: Index) -> dict[str, Any]:
    name = f"{key}.safetensors"
    return read_tensors(folder / name) if name in index.files else {}


def _hash_of(folder: Path, name: str) -> str:
    try:
        return sha256_file(folder / name)
    except StorageError as error:
        raise _unreadable(folder, f"`{name}`", error) from error


def _unreadable(folder: Path, what: str, error: OSError) -> CheckpointError:
    return CheckpointError(path=folder, reason=f"{what} cannot be read ({error.strerror or error})", errno=error.errno)


def _read_index(folder: Path) -> Index:
    try:
        content = json.loads((folder / INDEX).read_bytes())
        _check_format(folder, content)
        claimed = content.pop("index_sha256")
        files = {name: FileRecord(**record) for name, record in content["files"].items()}
        index = Index(content["step"], files)
        unchanged = fingerprint(content) == claimed
    except FileNotFoundError as error:
        missing = f"`{INDEX}` is missing" if folder.is_dir() else "there is no such folder"
        raise CheckpointError(path=folder, reason=missing, errno=error.errno) from error
    except CheckpointError:
        raise
    except OSError as error:
        raise _unreadable(folder, f"`{INDEX}`", error) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(path=folder, reason=f"`{INDEX}` is not an index ({error!r})") from error
    if not unchanged:
        raise CheckpointError(path=folder, reason=f"the content of `{INDEX}` has changed (its SHA-256 differs)")
    if step_of(folder) not in {None, index.step}:
        raise CheckpointError(path=folder, reason=f"it holds step {index.step}")
    return index


def _check_format(folder: Path, content: Any) -> None:
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("version"), int):
        raise CheckpointError(path=folder, reason=f"`{INDEX}` is not an index of the format {FORMAT!r}")
    version = content["version"]
    if version > VERSION:
        raise CheckpointVersionError(
            path=folder,
            reason=f"it has version {version} of the format {FORMAT!r}, and this program reads version {VERSION}",
            remedy="Use the bedstone that wrote it, or a newer one.",
        )
    if version != VERSION:
        raise CheckpointError(path=folder, reason=f"the version {version} of the format {FORMAT!r} does not exist")
