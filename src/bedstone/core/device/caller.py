"""Who called us: the first frame outside bedstone, which is the line that a warning should point at."""

from __future__ import annotations

import sys


def outside_stacklevel() -> int:
    """Return the `stacklevel` with which `warnings.warn`, called by our caller, points at the first foreign frame.

    Python 3.12 has `skip_file_prefixes` for this; 3.11 does not.
    """
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - no public name
    while frame.f_back is not None and f"{frame.f_globals.get('__name__', '')}.".startswith("bedstone."):
        level, frame = level + 1, frame.f_back
    return level
