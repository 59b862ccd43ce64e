"""The path of a value inside a config: `lora_r`, `datasets[0].path`. One spelling for lines, problems and overrides."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def join_path(parts: Sequence[str | int]) -> str:
    """Return the text of a path.

    >>> join_path(["datasets", 0, "path"])
    'datasets[0].path'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")


def split_path(text: str) -> tuple[str | int, ...]:
    """Return the parts of a path; `datasets.0.path`, easier to type in a shell, is read like `datasets[0].path`.

    >>> split_path("datasets.0.path") == split_path("datasets[0].path") == ("datasets", 0, "path")
    True
    """
    parts = re.sub(r"\[(\d+)\]", r".\1", text).split(".")
    # ASCII digits only: int() would also read other scripts' digits, which no file here means as an index.
    return tuple(int(part) if re.fullmatch(r"[0-9]+", part) else part for part in parts)


def parents(path: str) -> list[str]:
    """Return the path and everything it lies in, innermost first.

    >>> parents("datasets[0].path")
    ['datasets[0].path', 'datasets[0]', 'datasets']
    """
    parts = split_path(path)
    return [join_path(parts[:length]) for length in range(len(parts), 0, -1)]
