"""Names to implementations, for every family alike: ours by registration, other people's by entry points.

A plug-in is a package that declares an entry point in one of `GROUPS`. Entry points are read on the first look-up, never
by an import (reading them costs milliseconds). One that fails to load is kept aside with its traceback: it breaks
nothing, `bedstone doctor` lists it, and asking for it by name raises `PluginError`.
"""

from __future__ import annotations

import threading
import traceback
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from bedstone.core.errors import InvalidConfigError, PluginError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
T2 = TypeVar("T2")

GROUPS = ("bedstone.backends", "bedstone.datasets", "bedstone.kernels", "bedstone.quantizers", "bedstone.trackers")
"""The entry-point groups that bedstone reads."""


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """One installed entry point and whether it loads.

    Attributes:
        group: One of `GROUPS`.
        name: The name it registers.
        target: What it points at, `package.module:attribute`.
        distribution: The installed package and version that declares it.
        traceback: Empty when it loads, else why it does not.
    """

    group: str
    name: str
    target: str
    distribution: str
    traceback: str = ""

    @property
    def ok(self) -> bool:
        """Whether it loads."""
        return not self.traceback


class Registry(Generic[T]):
    """The implementations of one family by name.

    Args:
        kind: What a member is called in messages, for example `data format`.
        group: The entry-point group that other packages add members with; `None` for a closed family.

    >>> formats = Registry[str]("data format")
    >>> formats.add("alpaca", "instruction, input, output")
    >>> formats.names()
    ('alpaca',)
    >>> formats.get("alpacca")
    Traceback (most recent call last):
    bedstone.core.errors.UnknownNameError: No data format is called 'alpacca'. Did you mean 'alpaca'? Known: alpaca.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        if group is not None and group not in GROUPS:
            raise InvalidConfigError(f"`group` (={group!r}) must be one of {', '.join(GROUPS)}.")
        self.kind = kind
        self.group = group
        self._members: dict[str, T] = {}
        self._broken: list[PluginStatus] = []
        self._plugins_read = group is None
        self._reading = False
        self._lock = threading.RLock()

    def add(self, name: str, member: T) -> None:
        """Register `member` as `name`.

        Raises:
            InvalidConfigError: The name is taken; nothing is replaced in silence.
        """
        with self._lock:
            if name in self._members:
                taken = self._members[name]
                message = f"The {self.kind} {name!r} is already registered as {taken!r}."
                raise InvalidConfigError(message, argument="name", value=name, remedy="Choose another name.")
            self._members[name] = member

    def register(self, name: str) -> Callable[[T2], T2]:
        """Return a decorator that registers what it decorates as `name` and returns it unchanged.

        >>> shapes = Registry[type]("shape")
        >>> @shapes.register("square")
        ... class Square: ...
        >>> shapes.get("square").__name__
        'Square'
        """

        def decorate(member: T2) -> T2:
            self.add(name, member)  # pyright: ignore[reportArgumentType] - a decorator cannot narrow to T
            return member

        return decorate

    @overload
    def get(self, name: str) -> T: ...
    @overload
    def get(self, name: str, default: T2) -> T | T2: ...
    def get(self, name: str, default: T2 = ...) -> T | T2:  # pyright: ignore[reportInconsistentOverload]
        """Return the member called `name`, loading plug-ins first.

        Raises:
            UnknownNameError: Nothing has this name; lists the known ones.
            PluginError: The name belongs to a plug-in that does not load.
        """
        self._read_plugins()
        if name in self._members:
            return self._members[name]
        for status in self._broken:
            if status.name == name:
                raise _plugin_error(status)
        if default is not ...:
            return default
        raise UnknownNameError(self.kind, name, self._members)

    def names(self) -> tuple[str, ...]:
        """Return every usable name, ours first, in order of registration."""
        return tuple(self.items())

    def items(self) -> dict[str, T]:
        """Return a copy of name to member, plug-ins loaded."""
        self._read_plugins()
        with self._lock:
            return dict(self._members)

    def broken(self) -> tuple[PluginStatus, ...]:
        """Return the plug-ins of this family that do not load."""
        self._read_plugins()
        return tuple(self._broken)

    def _read_plugins(self) -> None:
        if self._plugins_read:  # nearly always; once true it stays true
            return
        with self._lock:
            if self._reading or self._plugins_read:  # a plug-in that looks into its registry while it is imported
                return
            self._reading = True
            try:
                loaded = [_load(point) for point in entry_points(group=self.group or "")]
            finally:  # after Ctrl-C the next look-up reads them again
                self._reading = False
            for status, member in loaded:
                self._take(status, member)
            self._plugins_read = True

    def _take(self, status: PluginStatus, member: object) -> None:
        taken = self._members.get(status.name, member)
        if status.ok and taken is not member:
            status = replace(status, traceback=f"the name {status.name!r} is already taken by {taken!r}")
        if status.ok:
            self._members[status.name] = member  # pyright: ignore[reportArgumentType] - checked by its kit
        else:
            self._broken.append(status)


def plugin_report() -> tuple[PluginStatus, ...]:
    """Load every installed plug-in of every group and return how each fared; never raises."""
    points = [point for group in GROUPS for point in entry_points(group=group)]
    return tuple(_load(point)[0] for point in points)


def _load(point: EntryPoint) -> tuple[PluginStatus, object]:
    status = PluginStatus(point.group, point.name, point.value, "a package without metadata")
    try:
        if point.dist is not None and point.dist.name:
            status = replace(status, distribution=f"{point.dist.name} {point.dist.version}")
        return status, point.load()
    except (Exception, SystemExit):  # noqa: BLE001 - other people's code may fail in any way; reported by name
        return replace(status, traceback=traceback.format_exc()), None


def _plugin_error(status: PluginStatus) -> PluginError:
    last_line = status.traceback.strip().splitlines()[-1]
    return PluginError(
        f"The plug-in {status.name!r} ({status.target} of {status.distribution}) does not load: {last_line}",
        group=status.group,
        name=status.name,
        traceback=status.traceback,
        remedy="Run `bedstone doctor` for the whole traceback, then update or uninstall that package.",
    )
