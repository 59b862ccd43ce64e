"""A nested state taken apart into named tensors and plain JSON, and put together again without any loss.

What a training run must remember is a tree: optimizer state with integer keys, Python's random state with tuples and
integers of any size, NaN as a best loss so far. JSON knows none of these, and pickle would run code from a file. So
each thing JSON lacks becomes an object with one key that starts with `$`, and everything else reads as it stands:

    tensor          {"$tensor": "name"}             the tensor itself goes into the flat table under that name
    tuple           {"$tuple": [...]}
    other keys      {"$dict": [[key, value], ...]}  integer keys, or string keys that start with `$`
    big integer     {"$int": "0x..."}               2^63 and more; hexadecimal has no length limit in Python
    NaN, infinity   {"$float": "7ff8000000000000"}  the bits, so that a NaN keeps its payload
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from bedstone.core.errors import InvalidConfigError

Tree: TypeAlias = Any
"""A dictionary, list or tuple of trees; or a tensor, string, integer, float, boolean or `None`."""

_DEEPEST = 200
_JSON_INTEGERS = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class FlatTree:
    """A tree taken apart: `json` holds its shape and plain values, `tensors` each tensor by the name it has there."""

    json: Any
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


def flatten(tree: Tree, *, root: str = "state") -> FlatTree:
    """Take a tree apart; tensors are neither copied nor moved.

    A tensor's name is its path, joined with dots: `state.0.exp_avg`. A tensor that occurs twice gets two names. A
    subclass of `dict`, `list`, `tuple`, `str`, `int` or `float` comes back as the plain type, a parameter as a tensor.

    Args:
        tree: Dictionaries with string or integer keys, lists, tuples, tensors, strings, integers, floats, booleans,
            `None`.
        root: What error messages call the tree; also the name of the tensor when the tree is one.

    Raises:
        InvalidConfigError: Some part is of another type (its path is named), or nested deeper than 200 levels.

    >>> flat = flatten({"state": {0: {"exp_avg": torch.ones(2)}}, "betas": (0.9, 0.999)})
    >>> flat.json
    {'state': {'$dict': [[0, {'exp_avg': {'$tensor': 'state.0.exp_avg'}}]]}, 'betas': {'$tuple': [0.9, 0.999]}}
    >>> flat.tensors
    {'state.0.exp_avg': tensor([1., 1.])}
    """
    tensors: dict[str, torch.Tensor] = {}
    return FlatTree(_encode(tree, (), root, tensors), tensors)


def unflatten(flat: FlatTree) -> Tree:
    """Put a tree together again; the result is equal to what `flatten` was given, type by type and bit by bit.

    Args:
        flat: What `flatten` returned, or the same read from a file.

    Raises:
        InvalidConfigError: The JSON was not made by `flatten`, or names a tensor that is not there.

    >>> unflatten(flatten({1: (float("inf"), 2**80)}))
    {1: (inf, 1208925819614629174706176)}
    """
    return _decode(flat.json, flat.tensors)


def _encode(value: Any, path: tuple[str, ...], root: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = _free_name(".".join(path) or root, tensors)
        tensors[name] = value
        return {"$tensor": name}
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value) if value in _JSON_INTEGERS else {"$int": hex(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
    if len(path) >= _DEEPEST:
        raise InvalidConfigError(
            f"`{_shown(root, path[:3])}...` is nested deeper than {_DEEPEST} levels.",
            argument=root,
            remedy="Does it contain itself?",
        )
    if isinstance(value, dict):
        return _encode_dict(value, path, root, tensors)
    if isinstance(value, (list, tuple)):
        items = [_encode(item, (*path, str(place)), root, tensors) for place, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    raise InvalidConfigError(
        f"`{_shown(root, path)}` is of type {type(value).__name__}, which a checkpoint cannot hold.",
        argument=_shown(root, path),
        value=value,
        remedy="Use tensors, dictionaries, lists, tuples, strings, numbers, booleans and None.",
    )


def _encode_dict(value: dict[Any, Any], path: tuple[str, ...], root: str, tensors: dict[str, torch.Tensor]) -> Any:
    for key in value:
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            where = _shown(root, path)
            raise InvalidConfigError(
                f"`{where}` has the key {key!r}, which is neither a string nor an integer.", argument=where, value=key
            )
    pairs = [(key, _encode(item, (*path, str(key)), root, tensors)) for key, item in value.items()]
    if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
        return dict(pairs)
    return {"$dict": [[_encode(key, path, root, tensors), item] for key, item in pairs]}


def _free_name(path: str, taken: dict[str, torch.Tensor]) -> str:
    # {"a.b": x} and {"a": {"b": y}} have the same path. A name with a lone surrogate has no UTF-8, `__metadata__` has
    # a meaning of its own in a safetensors file.
    path = path.encode("utf-8", "backslashreplace").decode()
    name, count = path, 1
    while name in taken or name == "__metadata__":
        count += 1
        name = f"{path}#{count}"
    return name


def _shown(root: str, path: tuple[str, ...]) -> str:
    return ".".join((root, *path))


def _decode(value: Any, tensors: dict[str, torch.Tensor]) -> Tree:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: _decode(item, tensors) for key, item in value.items()}
    try:
        (content,) = value.values()
        return _decode_tagged(tag, content, tensors)
    except InvalidConfigError:
        raise
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise InvalidConfigError(
            f"`{tag}` with {str(value[tag])[:80]!r} is not part of a flattened tree.", argument=tag, value=value[tag]
        ) from error


def _decode_tagged(tag: str, content: Any, tensors: dict[str, torch.Tensor]) -> Tree:
    if tag == "$tensor":
        return tensors[content]
    if tag == "$tuple":
        return tuple(_decode(item, tensors) for item in content)
    if tag == "$dict":
        return {_decode(key, tensors): _decode(item, tensors) for key, item in content}
    if tag == "$int":
        return int(content, 16)
    if tag == "$float":
        return struct.unpack(">d", bytes.fromhex(content))[0]
    raise KeyError(tag)
