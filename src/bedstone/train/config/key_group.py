"""What is said about a key that does not exist: groups of names with one answer each."""

from __future__ import annotations

from dataclasses import dataclass

PLANNED = "not supported yet (planned)."
NOT_PLANNED = "not supported (not planned)."
OTHER_NAME = "unknown key."


@dataclass(frozen=True, slots=True)
class Group:
    """Names that get the same answer.

    Attributes:
        verdict: `PLANNED`, `NOT_PLANNED` or `OTHER_NAME`.
        instead: What to write instead, one sentence or two.
        names: The names, apart by spaces; one that ends in `*` stands for all names that begin so.
    """

    verdict: str
    instead: str
    names: str
