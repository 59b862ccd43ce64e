"""Saying once, and to the right people, that the CPU is in use though nobody chose it.

Once a process, package and reason; also over a fork, since a child need not repeat what its parent said. Only on rank 0
of a distributed run. Through `warnings`, pointing at the caller's own line, and through the event stream, hence the log.
When a filter turns the warning into an error, nothing counts as said.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bedstone.core.device.caller import outside_stacklevel
from bedstone.core.events import Event, emit

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from bedstone.core.device.report import DeviceRow


class CpuFallbackWarning(UserWarning):
    """The CPU is in use because no accelerator could be had; filter it by this class.

    >>> issubclass(CpuFallbackWarning, UserWarning)
    True
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuFallback(Event):
    """The CPU is in use though nobody chose it: who asked, reason code, sentence and remedy."""

    name: ClassVar[str] = "cpu_fallback"
    level: ClassVar[int] = logging.WARNING
    package: str
    code: str
    reason: str
    remedy: str

    def message(self) -> str:
        """Return the event as one sentence for people."""
        return fallback_text(self.package, self.reason, self.remedy)


class Said:
    """What this process has said already; safe for threads and forks.

    >>> said = Said()
    >>> said.claim("a"), said.claim("a")
    (True, False)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: set[Hashable] = set()

    def claim(self, key: Hashable) -> bool:
        """Return whether the caller is the first to say this, and remember it as said."""
        with self._lock:
            first = key not in self._keys
            self._keys.add(key)
            return first

    def __contains__(self, key: Hashable) -> bool:
        return key in self._keys

    def unclaim(self, key: Hashable) -> None:
        """Forget it: it could not be said."""
        with self._lock:
            self._keys.discard(key)

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where a thread that no longer exists may hold it; keep the memory."""
        self._lock = threading.Lock()


def fallback_text(package: str, reason: str, remedy: str) -> str:
    """Return the warning: who speaks, what happens, why, what to do, and how to silence it.

    >>> print(fallback_text("demo", "There is no GPU.", "Add one."))
    demo: using the CPU, though an accelerator was wanted. There is no GPU. Add one. To silence this, choose the CPU: \
BEDSTONE_FORCE_CPU=1 or DeviceConfig("cpu").
    """
    said = " ".join(filter(None, [reason, remedy]))
    silence = 'To silence this, choose the CPU: BEDSTONE_FORCE_CPU=1 or DeviceConfig("cpu").'
    return f"{package}: using the CPU, though an accelerator was wanted. {said} {silence}"


def warn_fallback(said: Said, package: str, cause: DeviceRow) -> None:
    """Warn that `package` got the CPU because of `cause`, unless that was said or this is not rank 0.

    Args:
        said: The memory of the process.
        package: Who asked for a device.
        cause: The row that explains it.
    """
    key = ("cpu_fallback", package, str(cause.code))
    if not is_first_rank(os.environ) or not said.claim(key):
        return
    text = fallback_text(package, cause.reason, cause.remedy)
    try:
        warnings.warn(text, CpuFallbackWarning, stacklevel=outside_stacklevel())
    except BaseException:  # a filter made it an error: the caller sees it, and the next one must too
        said.unclaim(key)
        raise
    emit(CpuFallback(package=package, code=str(cause.code), reason=cause.reason, remedy=cause.remedy))


def is_first_rank(environ: Mapping[str, str]) -> bool:
    """Tell whether this process speaks for a distributed run: `RANK` decides, else `LOCAL_RANK`, else it does.

    >>> is_first_rank({"RANK": "3", "LOCAL_RANK": "0"}), is_first_rank({"LOCAL_RANK": "0"}), is_first_rank({})
    (False, True, True)
    """
    return (environ.get("RANK") or environ.get("LOCAL_RANK") or "0").strip() == "0"
