"""Where things lie that are made once and kept: they may be deleted at any time, and are made anew."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for what is made once and kept: `BEDSTONE_CACHE`, else `bedstone` in the user's cache folder."""
    if named := os.environ.get("BEDSTONE_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bedstone"
