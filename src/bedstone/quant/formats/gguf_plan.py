"""Which weight of a model becomes which type of GGUF, decided before the first byte is written.

    weight of the model            type asked for       what is written
    int8, blocks of 32             q8_0                 the same codes, scales rounded to a half
    ternary                        tq1_0, tq2_0         the same trits, scales rounded to a half
    dense, of a linear layer       q8_0, q4_0           quantized once, as llama.cpp does it
    other, of a linear layer       tq1_0, tq2_0         `dense`: trits of a master weight would lose half of it
    packed otherwise, as nf4       q8_0, q4_0           refused; unpacked and quantized again with `requantize=True`
    embedding                      any                  `dense`
    norms, biases                  any                  f32

NF4 and FP4 have no type in GGUF, whose nearest relatives have other tables; so has row-wise int8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from bedstone.core.errors import InvalidConfigError, UnknownNameError
from bedstone.quant.formats import gguf_llama
from bedstone.quant.formats.errors import WeightFormatError
from bedstone.quant.formats.gguf_blocks import BLOCK_ELEMENTS, TERNARY_TYPES, holds_exactly
from bedstone.quant.tensor import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Sequence

DENSE_TYPES = {"f32": torch.float32, "f16": torch.float16}
"""The types of plain numbers."""

TYPES = (*BLOCK_ELEMENTS, *DENSE_TYPES)
"""All types that a linear layer can be written in."""

_TWICE = "unpacked and quantized again"


@dataclass(frozen=True, slots=True)
class GgufEntry:
    """One tensor to be written.

    Attributes:
        name: In the model.
        tensor: The weight.
        type: Of GGUF, in small letters.
        note: Why it is of this type, or what is done.
    """

    name: str
    tensor: torch.Tensor
    type: str
    note: str


def check_types(kind: str, dense: str, unfit: str) -> None:
    """Refuse options that cannot be.

    Args:
        kind: A name in `TYPES`.
        dense: A name in `DENSE_TYPES`.
        unfit: `refuse` or `dense`.

    Raises:
        UnknownNameError: There is no such type.
        InvalidConfigError: `unfit` is neither.

    >>> check_types("q5_0", "f16", "refuse")
    Traceback (most recent call last):
    bedstone.core.errors.UnknownNameError: No GGUF type is called 'q5_0'. Did you mean 'q8_0'? Known: f16, f32, q4_0, q8_0, \
tq1_0, tq2_0.
    """
    if kind not in TYPES:
        raise UnknownNameError("GGUF type", kind, TYPES)
    if dense not in DENSE_TYPES:
        raise UnknownNameError("dense GGUF type", dense, DENSE_TYPES)
    if unfit not in ("refuse", "dense"):
        raise InvalidConfigError(f"`unfit` (={unfit!r}) must be 'refuse' or 'dense'.", argument="unfit", value=unfit)


def plan_tensors(model: nn.Module, kind: str, dense: str, *, keep_unfit: bool, requantize: bool) -> list[GgufEntry]:
    """Return what is written for each parameter of a model, shared ones once.

    Args:
        model: A Llama.
        kind: The type of linear layers.
        dense: The type of what is not packed.
        keep_unfit: Write layers whose rows are no multiple of the block as `dense`, instead of refusing them.
        requantize: Allow packed weights to be quantized a second time.

    Raises:
        WeightFormatError: Layers that do not fit or would be quantized twice, all listed; or no weight becomes `kind`.
        UnsupportedError: A parameter that a Llama does not have.

    >>> from bedstone.testing import tiny_llama
    >>> [entry.type for entry in plan_tensors(tiny_llama(), "q8_0", "f16", keep_unfit=False, requantize=False)][:3]
    ['f16', 'q8_0', 'q8_0']
    """
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    plan: list[GgufEntry] = []
    unfit: list[str] = []
    for name, tensor in model.named_parameters():
        gguf_llama.gguf_name(name)
        entry = _choose(name, tensor, kind, dense) if name in linear else _outside(name, tensor, dense)
        if entry.type in BLOCK_ELEMENTS and tensor.shape[-1] % BLOCK_ELEMENTS[entry.type]:
            unfit.append(name)
            note = f"rows of {tensor.shape[-1]} are no multiple of {BLOCK_ELEMENTS[kind]}"
            entry = GgufEntry(name, tensor, dense, note)
        plan.append(entry)
    if unfit and not keep_unfit:
        raise _unfit(kind, unfit)
    twice = [entry.name for entry in plan if entry.note == _TWICE]
    if twice and not requantize:
        raise _twice(kind, twice)
    if kind in TERNARY_TYPES and not any(entry.type == kind for entry in plan):
        message = f"No weight of the model becomes {kind}: none is packed as ternary in whole blocks of 256 with rows that fit."
        remedy = "Train a model with ternary weights first, or use q8_0 or q4_0."
        raise WeightFormatError(message, format="gguf", remedy=remedy)
    return plan


def _outside(name: str, tensor: torch.Tensor, dense: str) -> GgufEntry:
    """What is not the weight of a linear layer."""
    return GgufEntry(name, tensor, *(("f32", "norms and biases") if tensor.ndim == 1 else (dense, "embedding")))


def _choose(name: str, tensor: torch.Tensor, kind: str, dense: str) -> GgufEntry:
    scheme = tensor.scheme if isinstance(tensor, QuantizedTensor) else None
    if scheme is not None and holds_exactly(scheme, kind):
        return GgufEntry(name, tensor, kind, f"the codes of {scheme.name}, scales rounded to a half")
    if kind in DENSE_TYPES or kind in TERNARY_TYPES:
        reason = "as asked" if kind in DENSE_TYPES else "not ternary in whole blocks of 256"
        note = f"unpacked from {scheme.name}, {reason}" if scheme else reason
        return GgufEntry(name, tensor, kind if kind in DENSE_TYPES else dense, note)
    return GgufEntry(name, tensor, kind, _TWICE if scheme else "quantized as llama.cpp does")


def _unfit(kind: str, layers: list[str]) -> WeightFormatError:
    block = BLOCK_ELEMENTS[kind]
    message = f"{_counted(layers)} rows that are no multiple of {block}, the block of {kind}: {_listed(layers)}."
    remedy = "Choose a type of a smaller block, or leave these layers dense with unfit='dense'."
    return WeightFormatError(message, format="gguf", weight=layers[0], layers=tuple(layers), remedy=remedy)


def _twice(kind: str, layers: list[str]) -> WeightFormatError:
    message = f"{_counted(layers)} packed weights that {kind} does not hold exactly: {_listed(layers)}."
    remedy = (
        "Export the dense model, or quantize them a second time with requantize=True; the report tells what it cost."
    )
    return WeightFormatError(message, format="gguf", weight=layers[0], layers=tuple(layers), remedy=remedy)


def _counted(layers: Sequence[str]) -> str:
    return "One layer has" if len(layers) == 1 else f"{len(layers)} layers have"


def _listed(layers: Sequence[str], most: int = 8) -> str:
    more = f" and {len(layers) - most} more" if len(layers) > most else ""
    return ", ".join(layers[:most]) + more
