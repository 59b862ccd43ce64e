"""A real data set that is on every machine: the docstrings of Python's own standard library.

About 3,400 questions for training and 650 about held-out modules, collected at run time in 2.5 seconds by
`stdlib_collector.py` in a process of its own. The rows depend on the Python build, and on nothing else: within a build
they are the same every time; the data fingerprint of a run tells builds apart. Nothing is cached on disk, since a stale
file costs more trouble than 2.5 seconds; a process collects once.

The docstrings are under the PSF licence of Python itself.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bedstone.core.errors import InvalidConfigError, StorageError, nearest
from bedstone.train.data.errors import DataError
from bedstone.train.data.format import DataFormat, Row, Segment, formats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bedstone.train.config.schema import DatasetConfig
    from bedstone.train.data.render import ChatRenderer

NAME = "stdlib_docstrings"
_PARTS = ("train", "heldout")
_COLLECTOR = Path(__file__).with_name("stdlib_collector.py")
_TIMEOUT_S = 120


@formats.register(NAME)
class StdlibDocstrings(DataFormat):
    """Questions about the standard library with the first sentences of the docstring as answer; needs no file."""

    def rows(self, dataset: DatasetConfig) -> Iterator[Row]:
        """Yield the rows of `dataset.split`: `train` (also when it is absent) or `heldout`.

        Raises:
            InvalidConfigError: `split` is another name, or a `path` is given.
            DataError: The collection failed.
        """
        part = dataset.split or "train"
        if part not in _PARTS:
            guess = nearest(part, _PARTS)
            remedy = f"Did you mean {guess!r}?" if guess else ""
            message = f"`split` (={part!r}) of {NAME} must be 'train' or 'heldout'."
            raise InvalidConfigError(message, argument="split", value=part, remedy=remedy)
        if dataset.path:
            message = f"`path` (={dataset.path!r}) has no meaning for {NAME}, which reads no file."
            raise InvalidConfigError(message, argument="path", value=dataset.path, remedy="Leave it out.")
        for number, fields in enumerate(_collected()[part], start=1):
            yield Row(fields, f"{NAME}[{part}]:{number}")

    def render(self, row: Row, chat: ChatRenderer, dataset: DatasetConfig) -> list[Segment]:  # noqa: ARG002 - contract
        """Return question and answer as two turns, or as Alpaca prompt when the model has no chat template."""
        return chat.dialogue(row.text("question"), row.text("answer"), source=row.source)


@functools.cache
def _collected() -> dict[str, list[dict[str, str]]]:
    # -I and -S: no current folder, environment or installed package can replace a module. -B: write no bytecode.
    command = [sys.executable, "-I", "-S", "-B", "-W", "ignore", "-X", "utf8", str(_COLLECTOR)]
    try:
        done = subprocess.run(  # noqa: S603 - our own file, no shell
            command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {error.returncode}"
        raise DataError(
            f"The docstrings of the standard library could not be collected: {reason}", source=NAME
        ) from error
    except subprocess.TimeoutExpired as error:
        message = f"Collecting the docstrings of the standard library took longer than {_TIMEOUT_S} s."
        raise DataError(message, source=NAME) from error
    except OSError as error:
        raise StorageError.from_os_error(error, path=sys.executable, doing="start Python") from error
    return json.loads(done.stdout)
