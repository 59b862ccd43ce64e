"""A whole Llama as a GGUF file for llama.cpp: packed weights with their own codes where a type holds them, the rest as asked.

Which weight becomes what stands in `gguf_plan.py`. Every choice, with the error that it cost, is in the report. The file appears
whole or not at all, and is written one tensor after the other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from bedstone.core.errors import StorageError, UnsupportedError
from bedstone.quant.formats import gguf_llama
from bedstone.quant.formats.errors import WeightFormatError
from bedstone.quant.formats.gguf_blocks import decode_dense, encode_dense, encode_packed, holds_exactly
from bedstone.quant.formats.gguf_plan import DENSE_TYPES, GgufEntry, check_types, plan_tensors
from bedstone.quant.model import relative_error
from bedstone.quant.tensor import QuantizedTensor
from bedstone.repro.files import replacing, sha256_file

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "tq1_0": 36, "tq2_0": 37}  # gguf.LlamaFileType


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor of the file.

    Attributes:
        name: In the model.
        gguf_name: In the file.
        type: Of GGUF, in small letters.
        shape: Of the weight.
        bytes: In the file.
        error: Relative error against the model's weight, `|g - w| / |w|` in the Frobenius norm.
        note: Why it is of this type, or what was done.
    """

    name: str
    gguf_name: str
    type: str
    shape: tuple[int, ...]
    bytes: int
    error: float
    note: str


@dataclass(frozen=True, slots=True)
class GgufReport:
    """What `export_gguf` wrote.

    Attributes:
        path: The file.
        bytes: Its length.
        sha256: The hash of its content.
        tensors: All of them, in the order of the file.
    """

    path: Path
    bytes: int
    sha256: str
    tensors: tuple[GgufTensor, ...]

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.bytes:,} bytes, {len(self.tensors)} tensors."]
        groups: dict[tuple[str, str], list[GgufTensor]] = {}
        for tensor in self.tensors:
            groups.setdefault((tensor.type, tensor.note), []).append(tensor)
        for (kind, note), tensors in groups.items():
            size, worst = sum(t.bytes for t in tensors), max(t.error for t in tensors)
            lines.append(f"{kind}: {len(tensors)} tensors, {size:,} bytes, error up to {worst:.2g} ({note}).")
        return "\n".join(lines)


def export_gguf(
    model: nn.Module,
    path: str | os.PathLike[str],
    type: str = "q8_0",  # noqa: A002 - what GGUF calls it
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    pretokenizer: str | None = None,
    dense: Literal["f16", "f32"] = "f16",
    unfit: Literal["refuse", "dense"] = "refuse",
    requantize: bool = False,
    name: str = "",
) -> GgufReport:
    """Write a Llama of transformers, dense or packed, as one GGUF file. Needs the extra `gguf`.

    Args:
        model: A `LlamaForCausalLM`.
        path: The file; replaced when it exists. Its folder must exist.
        type: Of the linear layers: `q8_0`, `q4_0`, `tq1_0`, `tq2_0`, `f16` or `f32`.
        tokenizer: A fast byte-level BPE tokenizer; without one the file takes token numbers alone.
        pretokenizer: llama.cpp's name for how the tokenizer cuts text; found by itself for GPT-2's and SmolLM's way.
        dense: The type of what is not packed, beside norms and biases, which are f32.
        unfit: What to do with linear layers whose rows are no multiple of the block: `refuse`, or `dense`.
        requantize: Allow a packed weight that the type does not hold exactly to be unpacked and quantized again.
        name: Of the model, for people; by default the name of the file.

    Returns:
        What was written, with the error of each tensor.

    Raises:
        WeightFormatError: A layer does not fit, would be quantized twice, or has a scale or value too large for a half; all layers
            concerned are listed in `layers`, and nothing was written.
        UnsupportedError: The model or tokenizer is of a kind that is not exported, or the package `gguf` is missing.
        UnknownNameError: There is no such type.
        InvalidConfigError: The tokenizer has more tokens than the model.
        StorageError: The file cannot be written; an earlier one is as it was.

    >>> import tempfile
    >>> from bedstone.testing import tiny_llama
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = export_gguf(tiny_llama(), f"{folder}/tiny.gguf", "q8_0")
    >>> sorted({tensor.type for tensor in report.tensors}), max(tensor.error for tensor in report.tensors) < 0.01
    (['f16', 'f32', 'q8_0'], True)
    """
    gguf = _package()
    check_types(type, dense, unfit)
    gguf_llama.check_model(model)
    config: Any = model.config
    if tokenizer is not None:
        parts = gguf_llama.tokenizer_parts(tokenizer, config.vocab_size)
        pretokenizer = pretokenizer or gguf_llama.pretokenizer_name(parts["pre_tokenizer"])
    plan = plan_tensors(model, type, dense, keep_unfit=unfit == "dense", requantize=requantize)
    target = Path(path)
    try:
        with replacing(target) as draft:
            writer = gguf.GGUFWriter(str(draft), gguf_llama.ARCHITECTURE)
            gguf_llama.write_shape(writer, config, name or target.stem)
            gguf_llama.write_tokenizer(writer, tokenizer, config.vocab_size, pretokenizer)
            writer.add_file_type(_FILE_TYPES[type])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            tensors = _write_tensors(writer, draft, plan, config)
            size, digest = draft.stat().st_size, sha256_file(draft)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError.from_os_error(error, path=target, doing="write the GGUF file") from error
    return GgufReport(target, size, digest, tuple(tensors))


# --- writing -------------------------------------------------------------------------------------


def _write_tensors(writer: Any, draft: Path, plan: list[GgufEntry], config: Any) -> list[GgufTensor]:
    """Write one tensor after the other, so that only one is in memory twice."""
    import numpy as np
    from gguf import GGMLQuantizationType

    for entry in plan:
        shape, number = _stored(entry)
        size = int(np.prod(shape)) * number.itemsize
        writer.add_tensor_info(
            gguf_llama.gguf_name(entry.name), shape, number, size, GGMLQuantizationType[entry.type.upper()]
        )
    writer.write_header_to_file(draft)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    tensors = []
    try:
        for entry in plan:
            content, error = _encode(entry)
            name = gguf_llama.gguf_name(entry.name)
            heads = gguf_llama.heads_of(name, config.num_attention_heads, config.num_key_value_heads)
            content = gguf_llama.to_pairs(content, heads) if heads else content
            writer.write_tensor_data(content.contiguous().numpy())
            shape = tuple(entry.tensor.shape)
            tensors.append(GgufTensor(entry.name, name, entry.type, shape, content.nbytes, error, entry.note))
    finally:
        _close(writer)
    return tensors


def _close(writer: Any) -> None:
    for file in writer.fout or ():
        file.flush()
        os.fsync(file.fileno())
    writer.close()


def _stored(entry: GgufEntry) -> tuple[tuple[int, ...], Any]:
    """Shape and number type of the array that is handed to the writer."""
    import numpy as np

    if entry.type in DENSE_TYPES:
        return tuple(entry.tensor.shape), np.dtype(np.float32 if entry.type == "f32" else np.float16)
    from gguf.quants import quant_shape_to_byte_shape

    return quant_shape_to_byte_shape(entry.tensor.shape, _number(entry.type)), np.dtype(np.uint8)


def _number(kind: str) -> Any:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[kind.upper()]


def _encode(entry: GgufEntry) -> tuple[torch.Tensor, float]:
    weight, kind = entry.tensor, entry.type
    packed = isinstance(weight, QuantizedTensor)
    exact = weight.dequantize(torch.float32).cpu() if packed else weight.detach().float().cpu()
    if kind in DENSE_TYPES:
        content = exact.to(DENSE_TYPES[kind])
        if not bool(torch.isfinite(content).all()):
            message = f"{entry.name!r} has values that {kind} does not hold."
            raise WeightFormatError(message, format="gguf", weight=entry.name, remedy="Use dense='f32'.")
        return content, relative_error(content, exact)
    if packed and holds_exactly(weight.scheme, kind):
        content = encode_packed(weight, kind, name=entry.name)
    else:
        content = encode_dense(exact, kind, name=entry.name)
    return content, relative_error(decode_dense(content, kind), exact)


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        message = "GGUF files are written by the package `gguf`, which is not installed."
        raise UnsupportedError(message, feature="gguf", remedy="Run `pip install 'bedstone[gguf]'`.") from error
    return gguf
