"""Packed weights as plain tensors and a description in JSON, and back: what every file and checkpoint of ours is made of.

A packed weight `w` becomes its parts under the names `w.<part>`, for example `w.packed` and `w.absmax`. The description says
what they are, as the metadata of a safetensors file take it, one text by name:

    {"bedstone.packed": '{"version": 1, "weights": {"w": {"scheme": {...}, "shape": [8, 64], "dtype": "float32"}}}'}

Names, shapes and dtypes of the parts are not written down: the scheme says them, by packing a weight without memory.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.dtype import parse_dtype
from bedstone.core.errors import CoreError, UnknownNameError
from bedstone.quant.formats.errors import FormatVersionError, WeightFormatError
from bedstone.quant.scheme import scheme_from_dict, schemes
from bedstone.quant.tensor import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bedstone.quant.scheme import Scheme

FORMAT, VERSION = "bedstone", 1
METADATA_KEY = "bedstone.packed"
"""The name of the description in the metadata of a file."""


def flatten_state_dict(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Take the packed weights of a state dict apart.

    Args:
        state: Tensors by name, some of them packed.

    Returns:
        Plain tensors by name, sharing memory with `state`, and the metadata that `unflatten_state_dict` needs.

    Raises:
        WeightFormatError: A part and another tensor would have the same name.

    >>> import bedstone as bs
    >>> tensors, metadata = flatten_state_dict({"w": bs.quantize(torch.ones(8, 64), "nf4"), "b": torch.ones(8)})
    >>> sorted(tensors)
    ['b', 'w.absmax', 'w.packed']
    >>> torch.equal(unflatten_state_dict(tensors, metadata)["w"].dequantize(), torch.ones(8, 64))
    True
    """
    tensors: dict[str, torch.Tensor] = {}
    weights: dict[str, dict[str, Any]] = {}
    for name, tensor in state.items():
        if isinstance(tensor, QuantizedTensor):
            weights[name] = describe_weight(tensor)
            tensors.update({f"{name}.{part}": value for part, value in tensor.parts.items()})
        else:
            tensors[name] = tensor
    for name in weights:
        if clash := next((part for part in _part_names(state, name) if part in state), None):
            message = f"The part {clash!r} of the packed weight {name!r} has the name of another tensor."
            raise WeightFormatError(message, format=FORMAT, weight=name, remedy="Rename that tensor.")
    return tensors, {METADATA_KEY: json.dumps({"version": VERSION, "weights": weights})}


def unflatten_state_dict(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None
) -> dict[str, torch.Tensor]:
    """Put the packed weights of a state dict together again.

    Args:
        tensors: Plain tensors by name.
        metadata: Of `flatten_state_dict`, or of a file; what belongs to others in it is ignored. Without a description of ours
            the tensors come back as they are.

    Returns:
        Tensors by name, sharing memory with `tensors`, in the order of `tensors`.

    Raises:
        FormatVersionError: A newer bedstone wrote the description.
        WeightFormatError: The description is damaged, or a part is missing or of another shape or dtype than its scheme says.
        UnknownNameError: No scheme has a name that is used; its plug-in is not installed.

    >>> unflatten_state_dict({"b": torch.ones(2)}, {"format": "pt"})
    {'b': tensor([1., 1.])}
    """
    weights = packed_weights(metadata)
    rest = dict(tensors)
    made: dict[str, torch.Tensor] = {}
    for name, description in weights.items():
        made[name] = weight_from_parts(name, description, _take_parts(rest, name, description))
    order = {name: place for place, name in enumerate(tensors)}
    first = {name: min(order[f"{name}.{part}"] for part in made[name].parts) for name in weights}  # pyright: ignore[reportAttributeAccessIssue]
    return dict(sorted({**rest, **made}.items(), key=lambda item: first.get(item[0], order.get(item[0], 0))))


def describe_weight(weight: QuantizedTensor) -> dict[str, Any]:
    """Return what must be known beside the parts, as JSON takes it.

    >>> import bedstone as bs
    >>> describe_weight(bs.quantize(torch.ones(2, 4), "int8"))
    {'scheme': {'scheme': 'int8', 'granularity': 'row', 'block_size': 64}, 'shape': [2, 4], 'dtype': 'float32'}
    """
    dtype = str(weight.dtype).removeprefix("torch.")
    return {"scheme": weight.scheme.to_dict(), "shape": list(weight.shape), "dtype": dtype}


def weight_from_parts(name: str, description: Mapping[str, Any], parts: Mapping[str, torch.Tensor]) -> QuantizedTensor:
    """Return a packed weight from its description and its parts, each checked against what its scheme would make.

    Args:
        name: Of the weight, for messages.
        description: As `describe_weight` returns it.
        parts: Plain tensors by the name of the part; further ones are an error.

    Raises:
        WeightFormatError: As for `unflatten_state_dict`.
    """
    scheme, shape, dtype = _read(name, description)
    expected = expected_parts(scheme, shape, dtype)
    if missing := sorted(set(expected) - set(parts)):
        message = f"The part {missing[0]!r} of the packed weight {name!r} is missing."
        raise WeightFormatError(message, format=FORMAT, weight=name, part=missing[0], remedy=_DAMAGED)
    if unknown := sorted(set(parts) - set(expected)):
        message = f"The packed weight {name!r} has a part {unknown[0]!r}, which {scheme.name} does not have."
        raise WeightFormatError(message, format=FORMAT, weight=name, part=unknown[0], remedy=_DAMAGED)
    for part, model in expected.items():
        actual = parts[part]
        if (actual.shape, actual.dtype) != (model.shape, model.dtype):
            message = f"The part {part!r} of the packed weight {name!r} is {_shown(actual)}, but {scheme.name} of shape {shape} has {_shown(model)}."
            raise WeightFormatError(message, format=FORMAT, weight=name, part=part, remedy=_DAMAGED)
    return QuantizedTensor({part: parts[part] for part in expected}, scheme, shape, dtype)


def expected_parts(scheme: Scheme, shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the parts of a weight without memory: their names, shapes and dtypes.

    >>> from bedstone.quant import NF4
    >>> {name: tuple(part.shape) for name, part in expected_parts(NF4(), (8, 64), torch.float32).items()}
    {'packed': (256,), 'absmax': (8,)}
    """
    return dict(scheme.pack(torch.empty(shape, dtype=dtype, device="meta")))


def part_names(name: str, description: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the parts that a described weight has.

    Args:
        name: Of the weight, for messages.
        description: As `describe_weight` returns it.

    Raises:
        WeightFormatError: The description is damaged.
    """
    return tuple(expected_parts(*_read(name, description)))


def packed_weights(metadata: Mapping[str, str] | None) -> dict[str, dict[str, Any]]:
    """Return the description of each packed weight by name; nothing when the metadata have none of ours.

    Args:
        metadata: Of a file.

    Raises:
        FormatVersionError: As for `unflatten_state_dict`.
        WeightFormatError: It is damaged.
    """
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        return {}
    try:
        described = json.loads(text)
        version, weights = described["version"], described.get("weights")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"The description {METADATA_KEY!r} of the packed weights is damaged: {type(error).__name__}: {error}."
        raise WeightFormatError(message, format=FORMAT, remedy=_DAMAGED) from error
    if isinstance(version, int) and version > VERSION:
        raise FormatVersionError(version=version, newest=VERSION)
    if version != VERSION or not isinstance(weights, dict):
        message = f"The description {METADATA_KEY!r} of the packed weights has no version and weights that can be read."
        raise WeightFormatError(message, format=FORMAT, remedy=_DAMAGED)
    return weights


_DAMAGED = "The file or state dict is damaged or incomplete; get it again."


def _part_names(state: Mapping[str, torch.Tensor], name: str) -> list[str]:
    weight = state[name]
    return [f"{name}.{part}" for part in weight.parts] if isinstance(weight, QuantizedTensor) else []


def _take_parts(tensors: dict[str, torch.Tensor], name: str, description: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Move the parts of a weight out of `tensors`; those that are not there are left to `weight_from_parts`."""
    names = part_names(name, description)
    return {part: tensors.pop(f"{name}.{part}") for part in names if f"{name}.{part}" in tensors}


def _read(name: str, description: Any) -> tuple[Scheme, tuple[int, ...], torch.dtype]:
    try:
        options, sizes, dtype = (description[key] for key in ("scheme", "shape", "dtype"))
        shape = tuple(sizes)
        if not shape or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ValueError(f"shape {sizes}")  # noqa: TRY301 - told with the others
        return _scheme(json.dumps(options, sort_keys=True)), shape, parse_dtype(dtype)
    except UnknownNameError as error:
        if error.kind == schemes.kind:  # of a plug-in that is not installed; the message lists those that are
            raise
        raise _unreadable(name, error) from error
    except (LookupError, TypeError, ValueError, CoreError) as error:
        raise _unreadable(name, error) from error


@lru_cache(maxsize=64)
def _scheme(options: str) -> Scheme:
    """The layers of a model share one scheme: it is made, and told as valid, once."""
    return scheme_from_dict(json.loads(options))


def _unreadable(name: str, error: Exception) -> WeightFormatError:
    message = f"The description of the packed weight {name!r} cannot be read ({type(error).__name__}: {error})."
    return WeightFormatError(message, format=FORMAT, weight=name, remedy=_DAMAGED)


def _shown(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
