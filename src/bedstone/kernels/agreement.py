"""How far two results lie apart, and how far they may.

A difference counts relative to the value and to the size of the values around it, the root of their mean square. The limit is that of
the numerics, as in the conformance kit of operations, and for halves their rounding on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from bedstone.kernels.implementation import Numerics

LIMITS: dict[Numerics, float] = {"exact": 1e-5, "rounded": 1e-3, "approximate": 1e-1}
ROUNDING = {torch.bfloat16: 3 * 2**-8, torch.float16: 2**-10}


@dataclass(frozen=True)
class Difference:
    """The largest difference of two results.

    Attributes:
        largest: Relative.
        limit: That it may have.
        where: It is, or what else differs; empty if nothing does.
    """

    largest: float
    limit: float
    where: str

    @property
    def agrees(self) -> bool:
        """Whether it is within the limit."""
        return self.largest <= self.limit

    def __str__(self) -> str:
        if not self.where:
            return "no difference"
        if self.largest == float("inf"):
            return self.where
        return f"it differs by {self.largest:.2g} in {self.where}, where {self.limit:.2g} is allowed"


def difference(found: torch.Tensor, expected: torch.Tensor, what: str, numerics: Numerics = "exact") -> Difference:
    """Return how far a result lies from the expected one.

    Args:
        found: Of any dtype.
        expected: What it should be.
        what: Its name in messages.
        numerics: What it promises.

    >>> print(difference(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0]), "the output"))
    it differs by 0.14 in the output at (1,), where 1e-05 is allowed
    """
    limit = LIMITS[numerics] + ROUNDING.get(expected.dtype, 0.0)
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return Difference(float("inf"), limit, f"{what} is {_told(found)} instead of {_told(expected)}")
    ours, theirs = found.detach().double(), expected.detach().double()
    apart = torch.where(ours == theirs, 0.0, (ours - theirs).abs())  # equal infinities too
    apart = torch.where(ours.isnan() & theirs.isnan(), 0.0, apart)
    if not apart.any():
        return Difference(0.0, limit, "")
    sizes = theirs.abs() + theirs.nan_to_num(0.0, 0.0, 0.0).square().mean().sqrt()
    relative = (apart / sizes.clamp_min(torch.finfo(torch.float64).tiny)).nan_to_num(nan=float("inf"))
    at = tuple(int(index) for index in torch.unravel_index(relative.argmax(), relative.shape))
    if not relative.max().isfinite():
        return Difference(float("inf"), limit, f"{what} is {float(ours[at])} instead of {float(theirs[at])} at {at}")
    return Difference(float(relative.max()), limit, f"{what} at {at}")


def worst(differences: list[Difference]) -> Difference:
    """Return the one that exceeds its limit most; one that says nothing differs if there are none."""
    return max(differences, key=lambda each: each.largest / each.limit, default=Difference(0.0, 1.0, ""))


def _told(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
