"""The tiny Llama as a GGUF file, so that conversion is tested against known weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.testing.tiny import tiny_llama, tiny_tokenizer

if TYPE_CHECKING:
    import os
    from pathlib import Path


def write_tiny_gguf(path: str | os.PathLike[str], seed: int = 0) -> Path:
    """Write `tiny_llama(seed)` and `tiny_tokenizer()` as one GGUF file in F32 and return its path.

    Needs the extra `gguf`.

    References:
        The GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tiny_gguf(f"{folder}/tiny.gguf").read_bytes()[:4]
    b'GGUF'
    """
    from bedstone.quant.formats import export_gguf

    return export_gguf(tiny_llama(seed), path, "f32", dense="f32", tokenizer=tiny_tokenizer(), name="tiny").path
