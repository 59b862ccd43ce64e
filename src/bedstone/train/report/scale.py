"""Axes: ticks at round numbers, their labels, and the way from a value to a place on the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Beyond this a value is as good as infinite on a page, and differences of two would overflow.
LARGEST = 1e100
_ROUND = (1.0, 2.0, 5.0, 10.0)
_FINEST = 1e-9  # relative width below which a range counts as one value
_SMALL, _LARGE = 1e-3, 1e7


def drawable(value: float | None) -> bool:
    """Tell whether a value can be drawn: it is there, finite and not absurdly large.

    >>> drawable(1.5), drawable(float("nan")), drawable(None), drawable(1e300)
    (True, False, False, False)
    """
    return value is not None and math.isfinite(value) and abs(value) <= LARGEST


def round_step(width: float, count: int) -> float:
    """Return the smallest step of 1, 2 or 5 times a power of ten that needs at most `count` steps for a width.

    Args:
        width: Greater than 0.
        count: At least 1.

    >>> round_step(1.1, 5), round_step(36, 6)
    (0.5, 10.0)
    """
    rough = width / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in _ROUND if factor * power >= rough * (1 - _FINEST)), 10 * power)


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values laid over a range of places.

    Attributes:
        low, high: The values at the ends.
        ticks: The round values marked, inside the range.
        start, end: The places of `low` and `high`, in units of the drawing.

    >>> axis = Axis.around([2.7, 3.8], start=200, end=0)
    >>> axis.ticks, axis.place(3.0), axis.labels()
    ((2.5, 3.0, 3.5, 4.0), 133.33333333333334, ('2.5', '3.0', '3.5', '4.0'))
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    start: float
    end: float

    @classmethod
    def around(
        cls, values: Iterable[float], *, start: float, end: float, count: int = 4, from_zero: bool = False
    ) -> Axis:
        """Return an axis whose ends are round numbers around all values.

        Args:
            values: Drawable ones; none at all gives 0 to 1.
            start: The place of the low end.
            end: The place of the high end.
            count: How many steps at most.
            from_zero: Whether 0 must be on the axis.
        """
        low, high = _widened([*values, *([0.0] if from_zero else [])])
        step = round_step(high - low, count)
        first, last = math.floor(low / step + _FINEST), math.ceil(high / step - _FINEST)
        ticks = tuple(_at(index, step) for index in range(first, last + 1))
        return cls(ticks[0], ticks[-1], ticks, start, end)

    @classmethod
    def spanning(cls, low: float, high: float, *, start: float, end: float, count: int, whole: bool = False) -> Axis:
        """Return an axis with exactly these ends and round ticks between them; with `whole`, at whole numbers only."""
        step = round_step(high - low, count)
        step = max(step, 1.0) if whole else step
        first, last = math.ceil(low / step - _FINEST), math.floor(high / step + _FINEST)
        return cls(low, high, tuple(_at(index, step) for index in range(first, last + 1)), start, end)

    def place(self, value: float) -> float:
        """Return the place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def labels(self) -> tuple[str, ...]:
        """Return the ticks as text, all with the same number of digits."""
        return tick_labels(self.ticks)


def tick_labels(ticks: Sequence[float]) -> tuple[str, ...]:
    """Return evenly spaced round numbers as text.

    >>> tick_labels([0.0, 0.0001, 0.0002]), tick_labels([0.0, 500.0, 1000.0]), tick_labels([1.0])
    (('0', '1e-4', '2e-4'), ('0', '500', '1,000'), ('1',))
    """
    size = max((abs(tick) for tick in ticks), default=0.0)
    if size and not _SMALL < size < _LARGE:
        return tuple(_scientific(tick) for tick in ticks)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + _FINEST))
    return tuple("0" if tick == 0 and not digits else f"{tick:,.{digits}f}" for tick in ticks)


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if value else "0"


def _widened(values: list[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if high - low > _FINEST * max(abs(low), abs(high)):
        return low, high
    margin = abs(low) * 0.1 or 0.5
    return low - margin, high + margin


def _at(index: int, step: float) -> float:
    """Return index times step without the tail of binary fractions: 0.3, not 0.30000000000000004."""
    return float(f"{index * step:.12g}")
