r"""Reading JSONL: one JSON object a line, UTF-8; whatever is wrong is named as `file:line`.

Lines end at `\n` only. Python's text mode also splits at form feeds and Unicode separators, which may stand inside a
JSON string; the numbers would then differ from an editor's.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import InvalidConfigError, StorageError, nearest
from bedstone.train.data.errors import DataError
from bedstone.train.data.format import Row, json_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bedstone.train.config.schema import DatasetConfig

_ONE_A_LINE = "Write one JSON object a line; `jq -c '.[]' rows.json > rows.jsonl` converts a JSON list."


def read_jsonl(dataset: DatasetConfig) -> Iterator[Row]:
    """Yield the rows of a local JSONL file; empty lines are skipped and still counted in the line numbers.

    Args:
        dataset: Its `path` is the file, relative to the current folder; its `split` must be absent or `train`,
            since a file has no parts.

    Raises:
        InvalidConfigError: `path` is empty, or `split` names a part.
        StorageError: The file is missing or cannot be read; the nearest name beside it is suggested.
        DataError: A line is not UTF-8, not JSON, or not a JSON object.
    """
    if not dataset.path:
        message = f"`path` of the data set of type {dataset.type!r} is missing."
        raise InvalidConfigError(message, argument="path", remedy="Set it to a JSONL file.")
    if dataset.split not in {None, "train"}:
        message = f"`split` (={dataset.split!r}) cannot be chosen: the file {dataset.path} has no parts."
        raise InvalidConfigError(message, argument="split", value=dataset.split, remedy="Leave `split` out.")
    return _rows(Path(dataset.path))


def _rows(path: Path) -> Iterator[Row]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                source = f"{path}:{number}"
                # A byte order mark, which some editors write first, is not part of the JSON.
                text = _decoded(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, source)
                if text and not text.isspace():
                    yield Row(_object(text, source), source)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise StorageError.from_os_error(error, path=path, doing="read the data set") from error


def _decoded(line: bytes, source: str) -> str:
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        message = f"{source} is not UTF-8: byte {error.start + 1} of the line is 0x{line[error.start]:02x}."
        raise DataError(message, source=source, remedy="Save the file as UTF-8.") from error


def _object(text: str, source: str) -> dict[str, Any]:
    remedy = _ONE_A_LINE if text.lstrip()[0] == "[" else ""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"{source} is not JSON: {error.msg} at column {error.colno}."
        raise DataError(message, source=source, remedy=remedy) from error
    if not isinstance(value, dict):
        message = f"{source} must be a JSON object, but is {json_kind(value)}."
        raise DataError(message, source=source, remedy=remedy or _ONE_A_LINE)
    return value


def _missing(path: Path) -> StorageError:
    folder = path.parent
    if not folder.is_dir():
        message = f"The data set {path} does not exist, nor does its folder."
        remedy = f"Relative paths start at {Path.cwd()}."
    else:
        guess = nearest(path.name, [entry.name for entry in folder.iterdir()])
        message = f"The data set {path} does not exist."
        remedy = f"Did you mean {folder / guess}?" if guess else f"Relative paths start at {Path.cwd()}."
    return StorageError(message, path=path, errno=errno.ENOENT, remedy=remedy)
