"""Choices that were made once and are to be made again: a run keeps them, and takes the same implementations when it is resumed.

A choice is pinned for a shape class, so that batches of other lengths are not lost; a class that has no pin is chosen freely.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bedstone.core.dtype import parse_dtype
from bedstone.core.errors import InvalidConfigError
from bedstone.kernels.implementation import KernelSpec, full_name
from bedstone.kernels.policies import tell_changed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

_pins: dict[tuple[str, KernelSpec], str] = {}


@contextmanager
def pinned(choices: Iterable[Mapping[str, Any]]) -> Generator[None]:
    """Choose within a `with` block what was chosen before; for all threads. An implementation that cannot now is an error.

    Args:
        choices: What `chosen_kernels` gave.

    Raises:
        InvalidConfigError: They are not of that form.

    >>> import torch
    >>> pin = {"op": "linear_4bit", "implementation": "reference", **as_record(KernelSpec("cpu", torch.float32, 3, 8, 8))}
    >>> with pinned([pin]):
    ...     pin_of("linear_4bit", KernelSpec("cpu", torch.float32, 4, 8, 8))
    'reference'
    """
    added = dict(_read(each) for each in choices)
    before = dict(_pins)
    _pins.update(added)
    tell_changed()
    try:
        yield
    finally:
        _pins.clear()
        _pins.update(before)
        tell_changed()


def pin_of(op: str, spec: KernelSpec) -> str:
    """Return the implementation that is pinned for a specification, or nothing.

    Args:
        op: The operation.
        spec: Any of the class.
    """
    return _pins.get((op, spec.shape_class()), "") if _pins else ""


def as_record(spec: KernelSpec) -> dict[str, Any]:
    """Return the class of a specification as plain values for JSON.

    >>> import torch
    >>> as_record(KernelSpec("cpu", torch.bfloat16, 3, 8, 8))["dtype"]
    'bfloat16'
    """
    return {**spec.shape_class()._asdict(), "dtype": full_name(spec.dtype)}


def spec_of(record: Mapping[str, Any]) -> KernelSpec:
    """Return the specification that a record stands for.

    Args:
        record: One of `chosen_kernels`.

    Raises:
        InvalidConfigError: It is none.
    """
    try:
        fields = {name: record[name] for name in KernelSpec._fields}
        return KernelSpec(**{**fields, "dtype": parse_dtype(fields["dtype"])})
    except KeyError as error:
        message = f"{dict(record)!r} is no record of a chosen kernel: {error} is missing."
        raise InvalidConfigError(message, argument="choices", value=repr(record)) from error


def _read(record: Mapping[str, Any]) -> tuple[tuple[str, KernelSpec], str]:
    return (record["op"], spec_of(record)), record["implementation"]
