"""A configuration that cannot be wrong: it is checked when it is made, and every problem is reported at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import bedstone as bs
from bedstone.core.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class PrunerConfig(bs.ValidatableConfig):
    """How to prune a layer.

    Args:
        keep: Share of the weights that stays, above 0 and at most 1.
        group_size: Weights that are judged together; must divide `width`.
        width: Input features of the layer.
    """

    keep: float = 0.5
    group_size: int = 64
    width: int = 576

    def problems(self) -> Iterator[Problem]:
        """Yield every reason why this configuration cannot be."""
        if not 0 < self.keep <= 1:
            yield Problem("keep", f"(={self.keep}) must be above 0 and at most 1.", self.keep)
        if self.group_size < 1:
            yield Problem("group_size", f"(={self.group_size}) must be at least 1.", self.group_size)
        elif self.width % self.group_size:
            rule = f"(={self.group_size}) must divide `width` (={self.width})."
            near = max(size for size in range(1, self.group_size) if self.width % size == 0)
            yield Problem("group_size", rule, self.group_size, remedy=f"The next smaller one is {near}.")


def main() -> None:
    good = PrunerConfig()
    print(f"Sound: {good}")
    for wrong in ({"keep": 0.0, "group_size": 128}, {"group_size": 0}):
        try:
            PrunerConfig(**wrong)
        except bs.InvalidConfigError as error:
            print(f"\nRefused {wrong}:\n{error}")
            print(f"As facts: {[(problem.path, problem.value) for problem in error.problems]}")
    try:
        replace(good, width=100)  # a changed copy is checked like a new one
    except ValueError as error:
        print(f"\nA copy: {error}")


if __name__ == "__main__":
    main()
