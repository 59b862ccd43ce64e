"""Facts as plain frozen dataclasses that go to JSON and back.

A backend's `probe()` returns such facts and its `diagnose()` reads nothing else, so the facts of any machine can be
written to a file there and become a test here: `facts_to_json` on that machine, `facts_from_json` in the test.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar, cast

F = TypeVar("F")


def facts_to_json(facts: object) -> dict[str, Any]:
    """Return a dataclass of plain values as JSON values; tuples become lists.

    Args:
        facts: A dataclass of `str`, `int`, `float`, `bool`, `None`, tuples of these, and further such dataclasses.

    >>> from bedstone.core.device.pci import PciDevice
    >>> facts_to_json(PciDevice(address="0000:3b:00.0", vendor="nvidia", device="2330"))
    {'address': '0000:3b:00.0', 'vendor': 'nvidia', 'device': '2330'}
    """
    return {f.name: _to_json(getattr(facts, f.name)) for f in dataclasses.fields(cast("Any", facts))}


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return facts_to_json(value)
    if isinstance(value, tuple):
        return [_to_json(item) for item in cast("tuple[Any, ...]", value)]
    return value


def facts_from_json(kind: type[F], value: dict[str, Any]) -> F:
    """Return the facts that `facts_to_json` wrote; the two are inverse.

    Args:
        kind: The dataclass; its annotations must be importable at run time.
        value: What `facts_to_json` returned, perhaps read from a file.

    Raises:
        TypeError: `value` has a field that `kind` lacks, or lacks one without a default.

    >>> from bedstone.core.device.pci import PciDevice
    >>> facts_from_json(PciDevice, {"address": "0000:3b:00.0", "vendor": "nvidia", "device": "2330"}).vendor
    'nvidia'
    """
    hints = typing.get_type_hints(kind)
    # A name that the class lacks is left as it is: the constructor then says so.
    return kind(**{name: _from_json(hints.get(name, object), item) for name, item in value.items()})


def _from_json(hint: Any, value: Any) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        choices = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        return None if value is None else _from_json(choices[0], value)
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        repeated = len(kinds) == 2 and kinds[1] is ...  # noqa: PLR2004 - the shape of tuple[X, ...]
        each = [kinds[0]] * len(value) if repeated else kinds
        return tuple(_from_json(kind, item) for kind, item in zip(each, value, strict=True))
    return facts_from_json(cast("type[Any]", hint), value) if dataclasses.is_dataclass(hint) else value
