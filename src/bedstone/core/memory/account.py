"""The ledger of one device: what is allocated, the most there ever was, and a limit that no race can pass.

One lock holds check and update together, so that "does it fit" and "take it" are one step, on builds of Python with and
without the global lock alike. A refused call changes nothing.

A finalizer or a signal handler may give memory back at any moment, also while its own thread is in here. So the lock may
be taken again by its holder, and between reading and writing a figure nothing is called, since only a call lets them in.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from bedstone.core.errors import InvalidConfigError, OutOfMemoryError

if TYPE_CHECKING:
    from types import TracebackType

DEFAULT = "default"  # the account of calls that name no device


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """What a tracker knows about one device at one moment; sizes in bytes, `None` where there is no limit.

    >>> DeviceUsage("cpu", allocated_bytes=10, peak_bytes=30, limit_bytes=100).free_bytes
    90
    """

    device: str
    allocated_bytes: int
    peak_bytes: int
    limit_bytes: int | None

    @property
    def free_bytes(self) -> int | None:
        """What may still be allocated; `None` without a limit."""
        return None if self.limit_bytes is None else self.limit_bytes - self.allocated_bytes


class Account:
    """The figures of one device; each method is one step for every other thread.

    Args:
        device: Its name.
        limit_bytes: At least 1, or `None` for no limit.

    >>> account = Account("cpu", 100)
    >>> account.take(60), account.fits(60), account.usage().free_bytes
    (0, False, 40)
    """

    def __init__(self, device: str, limit_bytes: int | None) -> None:
        self.device, self.limit_bytes = device, limit_bytes
        self._lock = threading.RLock()
        self._allocated = self._peak = 0
        self._epoch = 0  # counts resets: what was taken before one has nothing to give back

    @property
    def allocated_bytes(self) -> int:
        """Bytes allocated now; one number needs no lock."""
        return self._allocated

    @property
    def peak_bytes(self) -> int:
        """The most bytes that were ever allocated at once."""
        return self._peak

    def take(self, size: int) -> int:
        """Allocate `size` bytes and return the epoch, or raise `OutOfMemoryError` and change nothing."""
        with self._lock:
            total = self._allocated + size
            if self.limit_bytes is None or total <= self.limit_bytes:
                self._allocated = total
                if total > self._peak:  # noqa: PLR1730 - `max` is a call
                    self._peak = total
                return self._epoch
            usage = self.usage()
        raise OutOfMemoryError(
            requested_bytes=size,
            free_bytes=usage.free_bytes,
            limit_bytes=usage.limit_bytes,
            allocated_bytes=usage.allocated_bytes,
            device=None if self.device == DEFAULT else self.device,
            remedy="Release memory first, ask for less, or raise the limit.",
        )

    def give_back(self, size: int, *, epoch: int | None = None) -> None:
        """Free `size` bytes; nothing if they were taken in an earlier epoch; more than there is raises.

        Raises:
            InvalidConfigError: `size` is more than is allocated; nothing changes.
        """
        with self._lock:
            if epoch is not None and epoch != self._epoch:
                return
            if size <= self._allocated:
                self._allocated -= size
                return
            allocated = self._allocated
        raise InvalidConfigError(
            f"`size_bytes` (={size}) must not exceed the {allocated} bytes allocated on {self.device}.",
            argument="size_bytes",
            value=size,
            remedy="Release every allocation once, with the size it was made with.",
        )

    def fits(self, size: int) -> bool:
        """Return whether `size` bytes more stay within the limit; one number needs no lock."""
        return self.limit_bytes is None or self._allocated + size <= self.limit_bytes

    def usage(self) -> DeviceUsage:
        """Return all figures of one moment."""
        with self._lock:
            return DeviceUsage(self.device, self._allocated, self._peak, self.limit_bytes)

    def reset(self) -> None:
        """Count nothing as allocated, and begin a new epoch."""
        with self._lock:
            self._allocated = self._peak = 0
            self._epoch += 1

    def reset_peak(self) -> None:
        """Let the peak start again from what is allocated now."""
        with self._lock:
            self._peak = self._allocated


class Reservation:
    """Memory held for somebody until `release()` or the end of a `with` block; `MemoryTracker.reserve` makes one.

    Args:
        account: Where it is counted, at once.
        size_bytes: At least 0.

    Raises:
        OutOfMemoryError: It does not fit.

    >>> account = Account("cpu", 100)
    >>> with Reservation(account, 60) as held:
    ...     held.size_bytes, account.usage().free_bytes
    (60, 40)
    >>> account.usage().free_bytes
    100
    """

    def __init__(self, account: Account, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._account = account
        self._lock = threading.RLock()
        self._epoch = account.take(size_bytes)
        self._held = True

    @property
    def device(self) -> str:
        """The name of the device, or `"default"`."""
        return self._account.device

    def release(self) -> None:
        """Give the memory back; a second call, and a call after `MemoryTracker.reset()`, change nothing."""
        with self._lock:
            if self._held:
                self._held = False
                self._account.give_back(self.size_bytes, epoch=self._epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "held" if self._held else "released"
        return f"Reservation({self.size_bytes} bytes on {self.device}, {state})"
