"""The contract of a device backend: look, then judge.

`probe()` looks: it gathers facts about this machine and creates no context, so that a fork afterwards works.
`diagnose()` judges: a pure function from facts to rows, so that every reason can be tested on any machine from recorded
facts. CUDA and ROCm, XPU and MPS are written against this contract like any plug-in.
`bedstone.testing.check_backend` proves an implementation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bedstone.core.device.report import DeviceRow

Facts = TypeVar("Facts")


class DeviceBackend(Protocol[Facts]):
    """A kind of accelerator; `Facts` is a frozen dataclass of plain values (see `bedstone.core.device.facts`).

    Attributes:
        name: What a user writes: `get_device("name")` or `get_device("name:1")`. Lower-case letters, digits and `_`.
    """

    @property
    def name(self) -> str:
        """What a user writes to ask for this backend."""
        ...

    def probe(self) -> Facts:
        """Return what can be read about this machine without initialising a device; what cannot be read is `None`."""
        ...

    def diagnose(self, facts: Facts) -> Sequence[DeviceRow]:
        """Return one row a candidate, best first, and at least one: with nothing there, one that says why."""
        ...
