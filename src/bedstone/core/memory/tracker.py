"""Memory with a limit, for one device or several: who wants memory asks first.

The tracker counts what it is told; it allocates nothing and asks no device. Its figures are kept by `account.py`.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from bedstone.core.errors import InvalidConfigError, UnknownNameError
from bedstone.core.memory.account import DEFAULT, Account, DeviceUsage, Reservation
from bedstone.core.memory.sizes import checked_count, parse_bytes
from bedstone.core.torch_errors import parse_device

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


class MemoryTracker:
    """Counts memory against a limit, for one device or several; safe to use from any number of threads.

    Calls without a device use the default account, whose limit is `limit_bytes`. Each device named in `limits` has an
    account of its own; a device that is not named there is refused, since a limit nobody set would be no limit.

    Args:
        limit_bytes: Limit of the default account: bytes, or a text such as `"8 GiB"`; `None` means no limit.
        limits: Limits of further devices by name or `torch.device`; `"cuda"` means `"cuda:0"`.
        overhead_factor: By what `estimate_with_overhead` multiplies; finite and at least 1. A float counts as the decimal
            that it is printed as, so that 1.1 means 11/10.

    Raises:
        InvalidConfigError: A limit is 0, negative, not whole, or not readable; a device name is not one; the factor is
            below 1 or not finite.

    >>> tracker = MemoryTracker("1 KiB")
    >>> tracker.allocate(1000)
    >>> tracker.would_fit(25), tracker.free_bytes
    (False, 24)
    >>> tracker.deallocate(1000)
    >>> tracker.allocated_bytes, tracker.peak_bytes
    (0, 1000)
    >>> with tracker.reserve(600):
    ...     tracker.allocate(600)
    Traceback (most recent call last):
    bedstone.core.errors.OutOfMemoryError: Out of memory: requested 600 bytes, allocated 600 bytes, free 424 bytes, \
limit 1,024 bytes. Release memory first, ask for less, or raise the limit.
    """

    def __init__(
        self,
        limit_bytes: int | str | None = None,
        *,
        limits: Mapping[torch.device | str, int | str | None] | None = None,
        overhead_factor: float | Fraction | Decimal = 1.1,
    ) -> None:
        self._factor = _checked_factor(overhead_factor)
        self._default = Account(DEFAULT, _checked_limit(limit_bytes, "limit_bytes"))
        self._accounts = {DEFAULT: self._default}
        for device, limit in (limits or {}).items():
            name = _device_name(device)
            if name in self._accounts:
                raise InvalidConfigError(f"`limits` names {name} twice.", argument="limits", value=str(device))
            self._accounts[name] = Account(name, _checked_limit(limit, f"limits[{str(device)!r}]"))

    def allocate(self, size_bytes: int, device: torch.device | str | None = None) -> None:
        """Count `size_bytes` as allocated.

        Args:
            size_bytes: At least 0.
            device: One of those named in `limits`; `None` for the default account.

        Raises:
            OutOfMemoryError: The limit would be passed; carries requested, allocated, free and limit; nothing changes.
            InvalidConfigError: `size_bytes` is negative, a bool or not whole.
            UnknownNameError: A device without an account.
        """
        self._account(device).take(checked_count(size_bytes, "size_bytes"))

    def deallocate(self, size_bytes: int, device: torch.device | str | None = None) -> None:
        """Count `size_bytes` as free again.

        Args:
            size_bytes: At least 0, at most what is allocated.
            device: As for `allocate`.

        Raises:
            InvalidConfigError: More than is allocated, negative, a bool or not whole; nothing changes.
            UnknownNameError: A device without an account.
        """
        self._account(device).give_back(checked_count(size_bytes, "size_bytes"))

    def reserve(self, size_bytes: int, device: torch.device | str | None = None) -> Reservation:
        """Allocate now, and return what gives the memory back: `with tracker.reserve(n): ...`, or its `release()`.

        Args:
            size_bytes: At least 0.
            device: As for `allocate`.

        Returns:
            The reservation, already counted.

        Raises:
            OutOfMemoryError: As `allocate`.
        """
        return Reservation(self._account(device), checked_count(size_bytes, "size_bytes"))

    def would_fit(self, size_bytes: int, device: torch.device | str | None = None) -> bool:
        """Return whether `size_bytes` more would fit now; another thread may be faster, so take with `reserve`.

        Raises:
            InvalidConfigError: `size_bytes` is negative, a bool or not whole.
            UnknownNameError: A device without an account.
        """
        return self._account(device).fits(checked_count(size_bytes, "size_bytes"))

    def estimate_with_overhead(self, size_bytes: int) -> int:
        """Return `ceil(size_bytes * overhead_factor)`, exact for any size.

        >>> MemoryTracker().estimate_with_overhead(10), MemoryTracker().estimate_with_overhead(4)
        (11, 5)
        """
        factor = self._factor
        return -(-checked_count(size_bytes, "size_bytes") * factor.numerator // factor.denominator)

    def usage(self, device: torch.device | str | None = None) -> DeviceUsage:
        """Return the figures of one device, all of the same moment.

        >>> MemoryTracker(limits={"cuda:1": "2 GiB"}).usage("cuda:1")
        DeviceUsage(device='cuda:1', allocated_bytes=0, peak_bytes=0, limit_bytes=2147483648)
        """
        return self._account(device).usage()

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of all accounts, `"default"` first."""
        return tuple(self._accounts)

    @property
    def allocated_bytes(self) -> int:
        """Bytes allocated now on the default account."""
        return self._default.allocated_bytes

    @property
    def peak_bytes(self) -> int:
        """The most bytes that were ever allocated at once on the default account."""
        return self._default.peak_bytes

    @property
    def limit_bytes(self) -> int | None:
        """The limit of the default account; `None` means no limit."""
        return self._default.limit_bytes

    @property
    def free_bytes(self) -> int | None:
        """What may still be allocated on the default account; `None` without a limit."""
        return self.usage().free_bytes

    @property
    def overhead_factor(self) -> float:
        """By what `estimate_with_overhead` multiplies."""
        return float(self._factor)

    def reset(self) -> None:
        """Count nothing as allocated on any device; reservations made before give nothing back any more."""
        for account in self._accounts.values():
            account.reset()

    def reset_peak(self) -> None:
        """Let the peak of each device start again from what is allocated now."""
        for account in self._accounts.values():
            account.reset_peak()

    def _account(self, device: torch.device | str | None) -> Account:
        if device is None:
            return self._default
        name = DEFAULT if device == DEFAULT else _device_name(device)
        account = self._accounts.get(name)
        if account is None:
            remedy = f"Name it in MemoryTracker(limits={{{name!r}: None}}) to track it, with a limit or without."
            raise UnknownNameError("device of this tracker", name, self._accounts, remedy=remedy)
        return account


def _device_name(device: torch.device | str) -> str:
    """One name for one memory: `cuda` and `cuda:0` share an account, `cpu:0` is `cpu`."""
    parsed = parse_device(device)
    return parsed.type if parsed.type == "cpu" else f"{parsed.type}:{parsed.index or 0}"


def _checked_limit(limit: int | str | None, argument: str) -> int | None:
    if limit is None:
        return None
    size = parse_bytes(limit, argument=argument) if isinstance(limit, str) else limit
    return checked_count(size, argument, at_least=1)


def _checked_factor(factor: float | Fraction | Decimal) -> Fraction:
    number = float(factor) if isinstance(factor, (int, float)) and not isinstance(factor, bool) else factor
    if isinstance(number, (float, Fraction, Decimal)) and math.isfinite(number) and number >= 1:
        return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)
    raise InvalidConfigError(
        f"`overhead_factor` (={factor!r}) must be a finite number of at least 1.",
        argument="overhead_factor",
        value=factor,
    )
