"""Numbers as people read them, the same way in every place of the report."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from bedstone.core.memory import format_bytes

_MINUTE, _HOUR = 60, 3600
_PLAIN_FROM, _PLAIN_TO = 1e-3, 1e6
_UNKNOWN = "unknown"


def say_loss(loss: float | None, digits: int = 3) -> str:
    """Return a loss with three digits after the point, the width at which runs are compared.

    >>> say_loss(2.75), say_loss(float("nan")), say_loss(None), say_loss(1e30)
    ('2.750', 'NaN', 'unknown', '1.00e+30')
    """
    if loss is None:
        return _UNKNOWN
    if not math.isfinite(loss):
        return "NaN" if math.isnan(loss) else f"{'-' if loss < 0 else ''}infinity"
    return f"{loss:.{digits}f}" if abs(loss) < _PLAIN_TO else f"{loss:.2e}"


def say_count(count: float | None) -> str:
    """Return a whole number with commas.

    >>> say_count(1234567), say_count(None)
    ('1,234,567', 'unknown')
    """
    return f"{count:,.0f}" if count is not None and math.isfinite(count) else _UNKNOWN


def say_bytes(count: float | None) -> str:
    """Return bytes as everywhere in bedstone.

    >>> say_bytes(512), say_bytes(1536), say_bytes(-1)
    ('512 B', '1.5 KiB', 'unknown')
    """
    return format_bytes(round(count)) if count is not None and 0 <= count < math.inf else _UNKNOWN


def say_seconds(seconds: float | None) -> str:
    """Return a duration in its two largest units.

    >>> say_seconds(0.25), say_seconds(9.96), say_seconds(192), say_seconds(7500)
    ('0.25 s', '10.0 s', '3 min 12 s', '2 h 5 min')
    """
    if seconds is None or not math.isfinite(seconds):
        return _UNKNOWN
    if seconds < _MINUTE:
        return f"{seconds:.2f} s" if abs(seconds) < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR:,} h {whole % _HOUR // _MINUTE} min"


def say_time(time: float | None) -> str:
    """Return seconds since the epoch as date and time in UTC, since a report travels between time zones.

    >>> say_time(0), say_time(1e300)
    ('1970-01-01 00:00:00 UTC', 'unknown')
    """
    try:
        moment = datetime.fromtimestamp(time if time is not None else math.nan, UTC)
    except (ValueError, OverflowError, OSError):  # not a number, or a year that the calendar lacks
        return _UNKNOWN
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def say_change(before: float, after: float) -> str:
    r"""Return the change from one finite loss to another in percent, or nothing where there is no percentage.

    >>> say_change(3.81, 2.75), say_change(2.0, 2.5), say_change(0.0, 1.0)
    ('\u221228\xa0%', '+25\xa0%', '')
    """
    if not before or not math.isfinite(before) or not math.isfinite(after):
        return ""
    percent = round(100 * (after - before) / abs(before))
    sign = "\N{MINUS SIGN}" if percent < 0 else "+" if percent > 0 else ""
    return f"{sign}{abs(percent):,}\N{NO-BREAK SPACE}%"


def say_number(value: float | None) -> str:
    """Return a number of unknown size with up to four significant digits: learning rates, norms.

    >>> say_number(0.0002), say_number(1.2345), say_number(0.0), say_number(None)
    ('2.000e-04', '1.234', '0', 'unknown')
    """
    if value is None:
        return _UNKNOWN
    if not math.isfinite(value):
        return say_loss(value)
    if value == 0:
        return "0"
    return f"{value:.3f}" if _PLAIN_FROM <= abs(value) < _PLAIN_TO else f"{value:.3e}"


def say_times(count: int) -> str:
    """Return how often something happened.

    >>> say_times(1), say_times(2), say_times(3)
    ('once', 'twice', '3 times')
    """
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def say_plural(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun; `plural` is needed where it is not the noun with an s.

    >>> say_plural(1, "step"), say_plural(2, "step"), say_plural(2, "stretch", "stretches")
    ('1 step', '2 steps', '2 stretches')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
