"""How fast work goes and how long it will still take, from the times of the events alone.

The events carry their own time, so the figures are the same in a test as in a run. Only the last readings count: a slow
start, for example compiling, is forgotten after `WINDOW` of them.
"""

from __future__ import annotations

from collections import deque

WINDOW = 20


class Pace:
    """The speed of one kind of work.

    >>> pace = Pace()
    >>> for second in range(3):
    ...     pace.add(time=float(second), done=10 * second)
    >>> pace.left_s(total=100)
    8.0
    """

    def __init__(self) -> None:
        self._readings: deque[tuple[float, int]] = deque(maxlen=WINDOW)

    def add(self, *, time: float, done: int) -> None:
        """Note that `done` units were done at `time` seconds; fewer than before means that the work began again."""
        if self._readings and done < self._readings[-1][1]:
            self._readings.clear()
        self._readings.append((time, done))

    def left_s(self, total: int) -> float | None:
        """Return the seconds until `total` units are done, `None` while that cannot be known."""
        if len(self._readings) < 2 or total <= 0:  # noqa: PLR2004 - a speed needs two readings
            return None
        (began, first), (now, done) = self._readings[0], self._readings[-1]
        if done <= first:
            return None
        return max(0, total - done) * (now - began) / (done - first)


def duration(seconds: float) -> str:
    """Return a length of time in the two largest units.

    >>> duration(4.2), duration(65), duration(7260)
    ('4s', '1m05s', '2h01m')
    """
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"  # noqa: PLR2004
