"""`quantize_model`: from the name of a model to a folder with the packed one, in the order that finds mistakes before they cost time.

The packed model is a copy of the dense one that shares every tensor which is not packed, so both are at hand for the comparison and
memory holds the dense weights and the packed ones, nothing twice.
"""

from __future__ import annotations

import copy
import math
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bedstone._version import __version__
from bedstone.core.device import get_device
from bedstone.core.dtype import parse_dtype
from bedstone.core.errors import InvalidConfigError
from bedstone.quant import QuantizationError, get_scheme, model_bytes, quantize
from bedstone.quant.model import LayerPlan
from bedstone.repro.files import json_bytes
from bedstone.train.models import load_model, load_settings, load_tokenizer, locate, longest_input
from bedstone.train.quantize.comparison import compare_models
from bedstone.train.quantize.destination import check_destination, check_room
from bedstone.train.quantize.gguf_types import gguf_types
from bedstone.train.quantize.outcome import ComparedText, Outcome
from bedstone.train.quantize.report import page
from bedstone.train.quantize.save import mark_as_packed, save
from bedstone.train.quantize.texts import read_texts
from bedstone.train.quantize.windows import windows

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from bedstone.quant import QuantizationReport, Scheme
    from bedstone.train.models import ModelSource

TOKENS = 2048
"""Tokens of each text that both models read, when nobody asks for another number."""


def quantize_model(
    model: str,
    out: str | os.PathLike[str],
    scheme: str | Scheme = "nf4",
    *,
    skip: Sequence[str] = (),
    texts: Sequence[str | os.PathLike[str]] = (),
    tokens: int = TOKENS,
) -> Outcome:
    """Pack the linear layers of a model, measure what that costs, and write the packed model as a transformers folder.

    The output layer stays dense, as transformers has it, and so does a layer that shares its weight with an embedding. Computed
    in float32 on a CPU, in the dtype of the model's files on an accelerator.

    Args:
        model: A model folder, a hub id, a `.gguf` file, or a `.whl` file that holds one.
        out: The folder to write; must be absent or empty.
        scheme: A scheme or its name: `nf4`, `fp4`, `int8`, `fp8`, `ternary`, or a plug-in's.
        skip: Further layers to leave dense, named as for `bedstone.quantize`.
        texts: UTF-8 files to compare the packed model with the dense one on; Python's language reference when there is none.
        tokens: How many tokens of each text are read, at least 2.

    Returns:
        Every figure, and where the folder is.

    Raises:
        CoreError: What was asked cannot be done; nothing was written. A name that is unknown (`UnknownNameError`), an option
            that is not allowed (`InvalidConfigError`), a file or folder (`StorageError`), the model (`ModelLoadError`), a model that
            is packed already or has nothing to pack (`QuantizationError`).
    """
    start = time.perf_counter()
    chosen = get_scheme(scheme)
    if tokens < 2:  # noqa: PLR2004 - one to read, one to predict
        raise InvalidConfigError(f"`tokens` (={tokens}) must be at least 2.", argument="tokens", value=tokens)
    contents = read_texts(texts, tokens)
    folder = check_destination(out)
    source = locate(model, argument="MODEL")
    earlier = gguf_types(Path(model).expanduser()) if source.local else None
    dtype = _dtype_of_files(source, chosen)
    tokenizer = load_tokenizer(source)
    device = get_device()
    dense = load_model(source, dtype=dtype, device=device)
    cut = [windows(text, tokenizer, tokens=tokens, longest=longest_input(dense)) for text in contents]
    dense_bytes = model_bytes(dense)
    dense = _in_dtype(dense, torch.float32 if device.type == "cpu" else dtype)
    packed, layers = _packed_copy(dense, chosen, skip)
    check_room(folder, model_bytes(packed))
    compared = compare_models(dense, packed, cut)
    del dense
    packed = _in_dtype(packed, dtype)
    mark_as_packed(packed, layers)
    outcome = Outcome(
        folder=folder,
        model=model,
        layers=_counted_in(layers, dtype),
        dtype=str(dtype),
        dense_bytes=dense_bytes,
        packed_bytes=model_bytes(packed),
        texts=tuple(ComparedText(text.name, found) for text, found in zip(contents, compared, strict=True)),
        earlier=earlier,
        circumstances=_circumstances(device),
        seconds=time.perf_counter() - start,
    )
    figures, shown = json_bytes(outcome.to_dict(), indent=2), page(outcome).encode()
    save(packed, tokenizer, {"quantization.json": figures, "report.html": shown}, folder)
    return replace(outcome, seconds=time.perf_counter() - start)


def _dtype_of_files(source: ModelSource, scheme: Scheme) -> torch.dtype:
    """Return the dtype that the model's files have, float32 when they do not say; refuse a model that is packed."""
    settings: Any = load_settings(source)
    if earlier := getattr(settings, "quantization_config", None):
        method = earlier.get("quant_method") if isinstance(earlier, dict) else getattr(earlier, "quant_method", None)
        message = f"The model {source.asked} is quantized already{f', by {method}' if method else ''}: its config.json has a quantization_config."
        remedy = "Name the dense model that it was made from."
        raise QuantizationError(message, scheme=scheme.name, remedy=remedy, model=source.asked)
    dtype = settings.dtype
    return parse_dtype(dtype) if isinstance(dtype, str) else dtype or torch.float32


def _in_dtype(model: Any, dtype: torch.dtype) -> Any:
    return model.to(dtype)


def _packed_copy(dense: Any, scheme: Scheme, skip: Sequence[str]) -> tuple[Any, QuantizationReport]:
    """Return a copy of a model with packed weights, which shares all others with it, and what was packed."""
    head = _output_layer(dense)
    left = [*skip, *([head] if head else [])]
    if not LayerPlan(dense, left).chosen:
        linear = sum(isinstance(module, nn.Linear) for module in dense.modules())
        why = f"all {linear} linear layers stay dense" if linear else "it has no torch.nn.Linear"
        message = f"{type(dense).__name__} has no linear layer to pack as {scheme.name}: {why}."
        raise QuantizationError(message, scheme=scheme.name, remedy="Choose another model, or skip less.")
    shared = {id(tensor): tensor for tensor in (*dense.parameters(), *dense.buffers())}
    packed = copy.deepcopy(dense, shared)  # what is in the memo is not copied
    report = quantize(packed, scheme, skip=left, measure=True)
    tied = head and dense.get_output_embeddings().weight is dense.get_input_embeddings().weight
    reason = "it is the output layer" + (" and shares its weight with the embedding" if tied else "")
    told = ((name, reason if name == head and head not in skip else why) for name, why in report.skipped)
    return packed, replace(report, skipped=tuple(told))


def _output_layer(model: Any) -> str:
    """Return the name of the linear layer that makes the logits, empty when there is none."""
    head = model.get_output_embeddings()
    names = (name for name, module in model.named_modules() if module is head and isinstance(module, nn.Linear))
    return next(names, "")


def _counted_in(report: QuantizationReport, dtype: torch.dtype) -> QuantizationReport:
    """Return a report whose dense sizes are those in the model's files, whatever was computed in."""
    layers = (replace(layer, dense_bytes=math.prod(layer.shape) * dtype.itemsize) for layer in report.packed)
    return replace(report, packed=tuple(layers))


def _circumstances(device: torch.device) -> dict[str, str]:
    import transformers

    return {
        "bedstone": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "device": str(device),
        "threads": str(torch.get_num_threads()),
    }
