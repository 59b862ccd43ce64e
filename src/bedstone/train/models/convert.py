"""GGUF -> Hugging Face folder (config, tokenizer, fp32 safetensors), as a program: `python -m ... FILE.gguf FOLDER`.

`GgufConfig(dequantize=True)` is what makes the loaded model savable; without it `save_pretrained` refuses. Each finished
part is one JSON line on stdout; everything else that the libraries print goes to stderr.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

_PARTS = ("libraries", "tokenizer", "weights", "files")


def _tick(part: str) -> None:
    print(json.dumps({"done": _PARTS.index(part) + 1, "total": len(_PARTS), "unit": "parts"}), flush=True)  # noqa: T201


def convert(gguf: Path, out: Path) -> None:
    """Write the model and tokenizer of `gguf` into the new folder `out`, dense fp32, deterministic.

    Args:
        gguf: A GGUF file of an architecture that transformers reads.
        out: A folder that does not exist yet.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    _tick("libraries")
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)
    _tick("tokenizer")
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    _tick("weights")
    model.save_pretrained(out)
    _tick("files")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
