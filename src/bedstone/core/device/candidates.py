"""The backends by name, ours in order of preference and then plug-ins, and a safe way to ask one for its rows.

Other packages add a backend with an entry point in the group `bedstone.backends` that names a `DeviceBackend` object.
A backend that fails becomes a row that says so: it never takes the other devices down with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.device.cuda import CudaBackend
from bedstone.core.device.mps import MpsBackend
from bedstone.core.device.reasons import Reason
from bedstone.core.device.report import DeviceRow
from bedstone.core.device.xpu import XpuBackend
from bedstone.core.registry import Registry

if TYPE_CHECKING:
    from bedstone.core.device.backend import DeviceBackend

backends: Registry[DeviceBackend[Any]] = Registry("device backend", "bedstone.backends")
"""Every device backend by name; the order is the order in which `auto` tries them."""

for _backend in (CudaBackend(), XpuBackend(), MpsBackend()):
    backends.add(_backend.name, _backend)


def backend_names() -> tuple[str, ...]:
    """Return the names of all backends, broken plug-ins too, in the order in which `auto` tries them.

    >>> backend_names()[:3]
    ('cuda', 'xpu', 'mps')
    """
    names = (*backends.names(), *(status.name for status in backends.broken()))
    return tuple(dict.fromkeys(names))  # a plug-in that was refused because its name is taken has that name too


def candidate_rows(name: str) -> tuple[DeviceRow, ...]:
    """Return the rows of one backend; its failure becomes a row with the code `BACKEND_PLUGIN_FAILED`.

    Args:
        name: One of `backend_names()`.

    >>> {row.backend for row in candidate_rows("mps")}
    {'mps'}
    """
    try:
        backend = backends.get(name)
        rows = tuple(backend.diagnose(backend.probe()))
        _check(rows)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - other people's code may fail in any way; the row says how
        return (_failed(name, error),)
    return rows


def _check(rows: tuple[object, ...]) -> None:
    strangers = [type(row).__name__ for row in rows if not isinstance(row, DeviceRow)]
    if strangers or not rows:
        raise TypeError(f"diagnose() returned {', '.join(strangers) or 'nothing'} where at least one DeviceRow belongs")
    for row in rows:
        if isinstance(row, DeviceRow) and row.usable:
            torch.device(row.device or "")  # raises, with torch's own words, for a name that torch does not know


def _failed(name: str, error: BaseException) -> DeviceRow:
    return DeviceRow(
        backend=name,
        verdict="unusable",
        code=Reason.BACKEND_PLUGIN_FAILED,
        reason=f"The device backend {name!r} failed: {type(error).__name__}: {error}",
        remedy="`bedstone doctor` shows where; update or uninstall the package that brings it.",
    )
