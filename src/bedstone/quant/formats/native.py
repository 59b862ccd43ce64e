"""Packed weights in a file of ours: one safetensors file that any reader opens, and that proves its own content.

The tensors are those of `flatten_state_dict`; the metadata hold its description and two more texts:

    bedstone.packed     what the packed weights are made of, and the format version
    bedstone.sha256     the hash of each tensor's bytes, so that a flipped bit is an error and not a worse model
    bedstone.aliases    names of tensors that share the memory of another, which is written once

A file appears whole or not at all; one that is replaced is never half of it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bedstone.core.errors import ShapeMismatchError, StorageError
from bedstone.quant.formats.errors import WeightFormatError
from bedstone.quant.formats.flat import FORMAT, METADATA_KEY, flatten_state_dict, unflatten_state_dict
from bedstone.quant.tensor import QuantizedTensor
from bedstone.repro.files import FileRecord, replacing
from bedstone.repro.tensor_file import check_tensors, tensor_content, write_tensors

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

SHA256_KEY, ALIASES_KEY = "bedstone.sha256", "bedstone.aliases"
_AGAIN = "Copy or download the file again."


def save_quantized(model: nn.Module | Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> FileRecord:
    """Write a model's weights, packed ones as they are, to one safetensors file.

    Args:
        model: A module, or a state dict.
        path: The file; replaced when it exists. Its folder must exist.

    Returns:
        Length and SHA-256 of the file.

    Raises:
        StorageError: The file cannot be written; an earlier one is as it was.
        UnsupportedError: A tensor cannot be in such a file, named; nothing was written.
        WeightFormatError: A part and another tensor would have the same name; nothing was written.

    >>> import tempfile
    >>> import bedstone as bs
    >>> layer = torch.nn.Linear(64, 8)
    >>> report = bs.quantize(layer, "nf4")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = save_quantized(layer, f"{folder}/layer.safetensors")
    ...     state = load_quantized(f"{folder}/layer.safetensors")
    >>> state["weight"]
    QuantizedTensor(nf4, shape=(8, 64), dtype=torch.float32, device=cpu, 4.5 bits a weight)
    """
    target = Path(path)
    tensors, metadata = flatten_state_dict(model.state_dict() if isinstance(model, nn.Module) else model)
    check_tensors(tensors, file=target.name)
    once, aliases = _without_repeats(tensors)
    metadata |= {
        SHA256_KEY: json.dumps({name: _sha256(tensor) for name, tensor in once.items()}),
        ALIASES_KEY: json.dumps(aliases),
    }
    try:
        with replacing(target) as draft:
            return write_tensors(draft, once, metadata)
    except OSError as error:
        raise StorageError.from_os_error(error, path=target, doing="write the packed weights") from error


def load_quantized(path: str | os.PathLike[str], model: nn.Module | None = None) -> dict[str, torch.Tensor]:
    """Read what `save_quantized` wrote; nothing in the file is executed.

    Args:
        path: The file.
        model: A module of the same names and shapes, dense or packed, on any device or on meta; its weights become those of the
            file, packed ones frozen. What a module keeps out of its state dict, for example a rotary table, is left as it is.

    Returns:
        Tensors by name on the CPU.

    Raises:
        StorageError: The file cannot be read, is damaged or truncated, or holds no packed weights of ours.
        FormatVersionError: A newer bedstone wrote it.
        WeightFormatError: Its description is damaged, a part is missing or has another shape or dtype, or the names are not the
            model's; the model was not changed.
        ShapeMismatchError: A weight of the model has another shape; the model was not changed.

    >>> load_quantized("nowhere.safetensors")
    Traceback (most recent call last):
    bedstone.core.errors.StorageError: Could not read the packed weights at nowhere.safetensors: No such file or directory.
    """
    source = Path(path)
    tensors, metadata = _read(source)
    try:
        state = unflatten_state_dict(tensors, metadata)
    except WeightFormatError as error:
        error.message = f"{source}: {error.message}"
        error.path = str(source)  # pyright: ignore[reportAttributeAccessIssue] - a fact more
        raise
    if model is not None:
        assign_state(model, state)
    return state


def assign_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Make the tensors of a state dict the weights of a model, packed ones frozen; shared ones stay shared.

    Args:
        model: A module of the same names and shapes, dense or packed, on any device or on meta.
        state: Tensors by name.

    Raises:
        WeightFormatError: A name is missing or unknown; the model was not changed.
        ShapeMismatchError: A weight has another shape; the model was not changed.

    >>> import bedstone as bs
    >>> layer = torch.nn.Linear(64, 8, device="meta")
    >>> assign_state(layer, {"weight": bs.quantize(torch.ones(8, 64), "int8"), "bias": torch.zeros(8)})
    >>> layer(torch.ones(64))[0].item()
    64.0
    """
    own = model.state_dict()
    _check_names(set(own), set(state))
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise ShapeMismatchError(expected=tuple(tensor.shape), actual=tuple(state[name].shape), argument=name)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    made: dict[int, nn.Parameter] = {}
    ready: dict[str, torch.Tensor] = dict(state)
    for name in parameters.keys() & state.keys():
        tensor = state[name]
        if isinstance(tensor, QuantizedTensor):
            parameters[name].requires_grad_(False)
        trainable = parameters[name].requires_grad
        ready[name] = made.setdefault(id(tensor), nn.Parameter(tensor, requires_grad=trainable))
    model.load_state_dict(ready, assign=True)


def _check_names(own: set[str], given: set[str]) -> None:
    for names, fault in ((own - given, "lacks"), (given - own, "has, and the model lacks,")):
        if names:
            first = ", ".join(repr(name) for name in sorted(names)[:3])
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004
            message = f"The state {fault} {first}{more}."
            remedy = "Load it into the model that it was saved from."
            raise WeightFormatError(message, format=FORMAT, names=tuple(sorted(names)), remedy=remedy)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        path.open("rb").close()  # safetensors tells a missing file without an errno
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Cloned, since what safe_open returns is a view of the file, which may be replaced later.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except OSError as error:
        raise StorageError.from_os_error(error, path=path, doing="read the packed weights") from error
    except SafetensorError as error:
        message = f"{path} is damaged or truncated: {error}."
        raise StorageError(message, path=path, remedy=_AGAIN) from error
    if METADATA_KEY not in metadata:
        message = f"{path} holds no packed weights of bedstone: its header has no {METADATA_KEY!r}."
        remedy = "Read it with safetensors, or with the import of its own format."
        raise StorageError(message, path=path, remedy=remedy)
    _check_hashes(path, tensors, _json(path, metadata, SHA256_KEY))
    for name, origin in _json(path, metadata, ALIASES_KEY).items():
        if origin not in tensors:
            message = f"{path} is damaged: {name!r} shares its memory with {origin!r}, which is missing."
            raise StorageError(message, path=path, remedy=_AGAIN)
        tensors[name] = tensors[origin]
    return tensors, metadata


def _json(path: Path, metadata: dict[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get(key, "{}"))
    except ValueError as error:
        value = error
    if not isinstance(value, dict):
        raise StorageError(f"{path} is damaged: {key!r} in its header cannot be read.", path=path, remedy=_AGAIN)
    return value


def _check_hashes(path: Path, tensors: dict[str, torch.Tensor], hashes: dict[str, Any]) -> None:
    for name, expected in hashes.items():
        if name in tensors and _sha256(tensors[name]) != expected:
            message = f"{path} is damaged: the bytes of {name!r} are not those that were written."
            raise StorageError(message, path=path, tensor=name, remedy=_AGAIN)


def _sha256(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for piece in tensor_content(tensor):
        digest.update(piece)
    return digest.hexdigest()


def _without_repeats(tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors that must be written, and the name of its twin for each of the others."""
    first: dict[Any, str] = {}
    once: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        origin = first.setdefault(key if tensor.numel() else name, name)
        if origin == name:
            once[name] = tensor
        else:
            aliases[name] = origin
    return once, aliases
