"""A Llama in a GGUF file as tensors of transformers' names, packed where a scheme of ours holds the type exactly.

type in the file       becomes
q8_0                   Int8("block", 32), the same codes; dequantizes to the same bits
tq1_0, tq2_0           Ternary("block", 256), the same trits and scales
f32, f16, bf16         dense, in its own dtype
every other            dense float32, as the package `gguf` dequantizes it
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import StorageError, UnsupportedError
from bedstone.quant.formats import gguf_llama
from bedstone.quant.formats.errors import WeightFormatError
from bedstone.quant.formats.gguf_blocks import TERNARY_TYPES, decode_dense, unpack_blocks

if TYPE_CHECKING:
    import os

_EXACT = ("q8_0", *TERNARY_TYPES)
_EMBEDDING = "model.embed_tokens.weight"
_AGAIN = "Copy or download the file again."


def load_gguf(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read the weights of a Llama from a GGUF file. Needs the extra `gguf`.

    Args:
        path: The file.

    Returns:
        Tensors by transformers' names, the rows in its order; what `assign_state` takes. A model that ties its head to its
        embedding has both names for one tensor.

    Raises:
        StorageError: The file cannot be read, or is damaged or truncated.
        WeightFormatError: A weight that is damaged, or a file of the other byte order.
        UnsupportedError: It is not a Llama, holds a tensor that a Llama does not have, or the package `gguf` is missing.

    >>> import tempfile
    >>> from bedstone.quant.formats import export_gguf
    >>> from bedstone.testing import tiny_llama
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = export_gguf(tiny_llama(), f"{folder}/tiny.gguf", "q8_0")
    ...     state = load_gguf(f"{folder}/tiny.gguf")
    >>> state["model.layers.0.mlp.up_proj.weight"]
    QuantizedTensor(int8, shape=(128, 64), dtype=torch.float32, device=cpu, 9 bits a weight)
    """
    source = Path(path)
    reader = _open(source)
    shape = _shape(source, reader)
    state: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            message = f"{source} has scaled rotary positions, which are not read here."
            raise UnsupportedError(message, feature="gguf", remedy="Load it with transformers.")
        name = gguf_llama.transformers_name(tensor.name)
        state[name] = _read(name, tensor, gguf_llama.heads_of(tensor.name, *shape))
    if "lm_head.weight" not in state and _EMBEDDING in state:
        state["lm_head.weight"] = state[_EMBEDDING]
    return state


def _open(path: Path) -> Any:
    try:
        import gguf
    except ImportError as error:
        message = "GGUF files are read by the package `gguf`, which is not installed."
        raise UnsupportedError(message, feature="gguf", remedy="Run `pip install 'bedstone[gguf]'`.") from error
    try:
        reader = gguf.GGUFReader(path)
    except OSError as error:
        raise StorageError.from_os_error(error, path=path, doing="read the GGUF file") from error
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:  # how its reader meets damaged bytes
        message = f"{path} is damaged or truncated, or no GGUF file ({error})."
        raise StorageError(message, path=path, remedy=_AGAIN) from error
    if reader.endianess is not gguf.GGUFEndian.LITTLE:
        message = f"{path} is in big-endian order; packed weights are read from little-endian files."
        raise WeightFormatError(message, format="gguf", remedy="Convert it with `gguf-convert-endian`.")
    return reader


def _shape(path: Path, reader: Any) -> tuple[int, int]:
    """Return the heads and key-value heads of a Llama."""
    kind = _field(reader, "general.architecture")
    if kind != gguf_llama.ARCHITECTURE:
        message = f"{path} holds a model of the architecture {kind!r}; only {gguf_llama.ARCHITECTURE!r} is read here."
        raise UnsupportedError(message, feature="gguf", remedy="Load it with transformers.")
    heads = _field(reader, "llama.attention.head_count")
    if not isinstance(heads, int):
        raise StorageError(f"{path} does not say how many heads its model has.", path=path, remedy=_AGAIN)
    kv_heads = _field(reader, "llama.attention.head_count_kv")
    return heads, kv_heads if isinstance(kv_heads, int) else heads


def _field(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _read(name: str, tensor: Any, heads: int | None) -> torch.Tensor:
    kind = tensor.tensor_type.name.lower()
    data = (
        torch.from_numpy(tensor.data.copy())
        if kind != "bf16"
        else torch.from_numpy(tensor.data.copy()).view(torch.bfloat16)
    )
    if heads:
        data = gguf_llama.to_halves(data, heads)
    if kind in _EXACT and name != _EMBEDDING:
        return unpack_blocks(data, kind, name=name)
    return data if data.is_floating_point() else decode_dense(data, kind)
