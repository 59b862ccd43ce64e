"""The config file itself: found, text, of a sensible size; what is wrong with it is named with its path."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from bedstone.core.errors import Problem, StorageError, nearest
from bedstone.train.config.yaml_lines import Document, read_document

if TYPE_CHECKING:
    import os

LIMIT_BYTES = 1 << 20
"""The largest file that is read as a config; larger ones are something else, a model for example."""


def read_config_file(path: str | os.PathLike[str]) -> Document:
    """Return what a YAML file says; a file that is not text or not YAML has problems and no values.

    Raises:
        StorageError: The file is missing, a folder, or cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
    except FileNotFoundError as error:
        raise _missing(Path(path)) from error
    except IsADirectoryError as error:
        raise _folder(Path(path)) from error
    except OSError as error:
        raise StorageError.from_os_error(error, path=path, doing="read the config") from error
    if len(content) > LIMIT_BYTES:
        return Document(None, problems=(Problem("", "is larger than 1 MiB; a config is a page of text."),))
    try:
        return read_document(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        what = f"is not text in UTF-8: byte {error.start + 1} is 0x{content[error.start]:02x}."
        return Document(None, problems=(Problem("", what),))


def _missing(path: Path) -> StorageError:
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    guess = nearest(path.name, beside)
    remedy = f"Did you mean {path.parent / guess}?" if guess else f"Relative paths start at {Path.cwd()}."
    return StorageError(f"There is no config file {path}.", path=path, errno=errno.ENOENT, remedy=remedy)


def _folder(path: Path) -> StorageError:
    inside = sorted(entry.name for entry in path.iterdir() if entry.suffix in {".yaml", ".yml"})
    remedy = f"It holds {', '.join(inside)}." if inside else ""
    return StorageError(f"{path} is a folder, not a config file.", path=path, errno=errno.EISDIR, remedy=remedy)
