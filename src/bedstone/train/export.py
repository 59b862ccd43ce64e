"""The result of a run, written so that others load it: an adapter in peft's format, or a whole model folder."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import StorageError
from bedstone.repro import sha256_file
from bedstone.repro.publish import put_in_place, remove_leftovers, temporary_folder
from bedstone.train.models import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

_WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
_RUST_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def export(model: Any, tokenizer: PreTrainedTokenizerBase, target: Path) -> str:
    """Write model and tokenizer into `target`, which appears whole or not at all; return the weights' SHA-256.

    Args:
        model: What was trained; peft writes only the adapter.
        tokenizer: Its tokenizer.
        target: The folder; an earlier one is replaced in one step.

    Raises:
        StorageError: It could not be written; an earlier folder is as it was.
    """
    with storage_errors(target, doing="write the trained weights"):
        remove_leftovers(target.parent)  # of an export that was killed
        with temporary_folder(target.parent, target.name) as draft:
            write_model(model, tokenizer, draft)
            put_in_place(draft, target)
    return sha256_file(weights_file(target))


def write_model(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model and tokenizer into a folder, each file forced to the disk.

    Args:
        model: A model of transformers, or one that peft wraps: then only the adapter.
        tokenizer: Its tokenizer.
        folder: An existing one.

    Raises:
        Exception: Of the libraries that write; `storage_errors` translates it.
    """
    # Left to itself, peft asks the hub whether the vocabulary has grown; here it never does.
    options = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    with quiet_transformers():
        model.save_pretrained(folder, **options)
        tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())


@contextmanager
def storage_errors(target: Path, *, doing: str) -> Generator[None]:
    """Translate what goes wrong in the block while files are written, also by libraries written in Rust.

    Args:
        target: What is written, for the message.
        doing: For the message, for example `write the trained weights`.

    Raises:
        StorageError: The operating system refused; any other failure comes out as it is.
    """
    try:
        yield
    except Exception as error:
        failure = _os_error(error)
        if failure is None or isinstance(error, StorageError):
            raise
        raise StorageError.from_os_error(failure, path=target, doing=doing) from error


def weights_file(folder: Path) -> Path:
    """Return the file of a result that identifies it: the weights, or their index when they are sharded.

    Raises:
        StorageError: The folder holds none.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise StorageError(
        f"{folder} holds no trained weights.", path=folder, remedy="Finish the run with `--resume auto`."
    )


def _os_error(error: Exception) -> OSError | None:
    """Return what the operating system said; safetensors and tokenizers, written in Rust, say it only in their text."""
    if isinstance(error, OSError):
        return error
    found = _RUST_OS_ERROR.search(str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None
