"""The result of a run, written so that others load it: an adapter in peft's format, or a whole model folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import StorageError
from bedstone.repro import sha256_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")


def export(model: Any, tokenizer: PreTrainedTokenizerBase, target: Path) -> str:
    """Write model and tokenizer into `target`, which appears whole or not at all; return the weights' SHA-256.

    Args:
        model: What was trained; peft writes only the adapter.
        tokenizer: Its tokenizer.
        target: The folder; an earlier one is replaced.

    Raises:
        StorageError: It could not be written; an earlier folder is as it was.
    """
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        if target.exists():
            shutil.rmtree(target)
        draft.chmod(0o755)  # mkdtemp makes it private
        draft.rename(target)
    except OSError as error:
        raise StorageError.from_os_error(error, path=target, doing="write the trained weights") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return sha256_file(weights_file(target))


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
