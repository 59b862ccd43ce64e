"""The report's way to the disk: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bedstone.core.errors import StorageError
from bedstone.train.report.page import page
from bedstone.train.report.read import read_run


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder, from what lies there, and return its path.

    The page needs no network and no other file. It may be written at any time, also while the run goes on: a young run
    gets a short report. An earlier report is replaced in one step.

    Args:
        run_folder: The folder that `bedstone train` wrote; `events.jsonl` must be in it.

    Raises:
        StorageError: The folder or its `events.jsonl` does not exist, a file cannot be read, or the report cannot be
            written.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "events.jsonl").write_text('{"event": "training_step", "step": 1, "loss": 2.5}')
    ...     write_report(Path(folder)).name
    'report.html'
    """
    run_folder = Path(run_folder)
    text = page(read_run(run_folder))
    path = run_folder / "report.html"
    try:
        _replace(path, text.encode())
    except OSError as error:
        raise StorageError.from_os_error(error, path=path, doing="write the report") from error
    return path


def _replace(path: Path, content: bytes) -> None:
    """Write beside the target, then rename: a reader sees the old page or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".report-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a report is as readable as the folder around it.
        Path(name).chmod(path.parent.stat().st_mode & 0o666)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
