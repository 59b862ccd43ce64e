"""The conformance kit of a `DeviceBackend`: what a type checker cannot see, run on this machine and on recorded facts.

No hardware is needed. Put the facts of every machine that matters into `recorded`; each must come to sound verdicts.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from bedstone.core.device import DeviceBackend, DeviceRow, Reason, facts_from_json, facts_to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Facts = TypeVar("Facts")


def check_backend(backend: DeviceBackend[Facts], *, recorded: Sequence[Facts] = ()) -> None:
    """Check that a device backend keeps its contract; say which part it breaks.

    Checked: the name; that `probe()` warns of nothing, initialises no CUDA, and returns a frozen dataclass that survives
    JSON; and for these facts and each of `recorded`, that `diagnose()` is pure (same rows again, from the facts' JSON,
    and with an empty environment) and that its rows are complete and agree with themselves.

    Args:
        backend: The backend, an object.
        recorded: Facts of other machines, composed or read with `facts_from_json`.

    Raises:
        AssertionError: The contract is broken; the message says where and what to do.

    >>> from bedstone.core.device import backends
    >>> check_backend(backends.get("mps"))
    """
    _require(
        re.fullmatch(r"[a-z][a-z0-9_]*", backend.name) is not None and backend.name not in {"auto", "cpu"},
        f"`name` (={backend.name!r}) must be lower-case letters, digits and _, and neither 'auto' nor 'cpu'.",
    )
    for facts in (_probed(backend), *recorded):
        _check_facts(facts)
        rows = _diagnosed(backend, facts)
        for row in rows:
            _check_row(row, backend.name)
        _check_together(rows)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _probed(backend: DeviceBackend[Facts]) -> Facts:
    before = torch.cuda.is_initialized()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a report is asked for; it must not warn on the way
        facts, again = backend.probe(), backend.probe()
    _require(torch.cuda.is_initialized() == before, "`probe()` initialised CUDA; a fork afterwards would not work.")
    _require(type(facts) is type(again), "`probe()` must return the same type every time.")
    return facts


def _check_facts(facts: Any) -> None:
    kind = type(facts)
    frozen = dataclasses.is_dataclass(facts) and kind.__dataclass_params__.frozen
    _require(frozen, f"`probe()` must return a frozen dataclass, not {kind.__name__}.")
    text = json.dumps(facts_to_json(facts))
    back = facts_from_json(kind, json.loads(text))
    _require(
        back == facts, f"The facts must survive JSON: {facts!r} came back as {back!r}. Use plain values and tuples."
    )


def _diagnosed(backend: DeviceBackend[Facts], facts: Facts) -> tuple[DeviceRow, ...]:
    rows = tuple(backend.diagnose(facts))
    _require(bool(rows), "`diagnose()` returned no row; with nothing there, one row says why.")
    strangers = [type(row).__name__ for row in rows if not isinstance(row, DeviceRow)]
    _require(not strangers, f"`diagnose()` must return DeviceRow objects, not {', '.join(strangers)}.")
    with _empty_environment():
        again = tuple(backend.diagnose(facts_from_json(type(facts), facts_to_json(facts))))
    _require(again == rows, "`diagnose()` must depend on the facts alone: with the same facts it returned other rows.")
    return rows


@contextmanager
def _empty_environment() -> Iterator[None]:
    saved = dict(os.environ)
    os.environ.clear()
    try:
        yield
    finally:
        os.environ.update(saved)


def _check_row(row: DeviceRow, name: str) -> None:
    _require(row.backend == name, f"`backend` (={row.backend!r}) of a row must be the backend's name {name!r}.")
    _require(row.verdict in {"usable", "unusable", "absent"}, f"`verdict` (={row.verdict!r}) is none of the three.")
    _require(row.usable == (row.code == Reason.OK), f"`code` (={row.code!r}) must be OK exactly when a row is usable.")
    _require(re.fullmatch(r"[A-Z][A-Z0-9_]*", row.code) is not None, f"`code` (={row.code!r}) must be in capitals.")
    _require(
        row.reason.endswith("."), f"`reason` (={row.reason!r}) must be a full sentence that ends with a full stop."
    )
    _require(
        not row.remedy or row.remedy.endswith("."), f"`remedy` (={row.remedy!r}) must be empty or a full sentence."
    )
    _require(not row.usable or row.device is not None, "A usable row must name its device.")
    _require(row.verdict != "absent" or row.device is None, "What is absent has no device.")
    _check_device(row)
    _check_sizes(row)
    json.dumps(row.to_dict())


def _check_device(row: DeviceRow) -> None:
    if row.device is None:
        _require(row.ordinal is None, f"`ordinal` (={row.ordinal}) needs a `device`.")
        return
    index = torch.device(row.device).index
    _require(
        index is None or index == row.ordinal, f"`device` (={row.device!r}) and `ordinal` (={row.ordinal}) must agree."
    )


def _check_sizes(row: DeviceRow) -> None:
    sizes = {"total_bytes": row.total_bytes, "free_bytes": row.free_bytes}
    for field, size in sizes.items():
        _require(size is None or size >= 0, f"`{field}` (={size}) must be None or 0 or more.")
    if row.total_bytes is not None and row.free_bytes is not None:
        _require(row.free_bytes <= row.total_bytes, f"`free_bytes` exceeds `total_bytes` in {row!r}.")


def _check_together(rows: Sequence[DeviceRow]) -> None:
    ordinals = [row.ordinal for row in rows if row.ordinal is not None]
    _require(len(set(ordinals)) == len(ordinals), f"Two rows have the same ordinal: {ordinals}.")
    absent = [row for row in rows if row.verdict == "absent"]
    _require(not absent or len(rows) == 1, "A row that says that nothing is there must stand alone.")
