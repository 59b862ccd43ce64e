"""What a merge into packed weights cost.

With W the weight that was packed, D the change that the adapter makes, and Q(W + D) the merged weight packed again, the change
that arrives is E = Q(W + D) - W. Two numbers tell how much of D is in it:

    kept    <E, D> / <D, D>     the share of the change that arrived: 1 when all did, 0 when none did
    error   |E - D| / |D|       what is wrong with it, missing and added alike, against the change itself

W lies on the grid of its scheme, so a change of less than half a step rounds back to where it was, and is lost; a change that
moves the largest weight of a block moves the whole grid, and adds noise. This is why a small adapter loses more than a large one,
and why the error can exceed 1. A ternary grid always moves: its scale is the mean magnitude, which is smaller than that of the
weights that are not zero, so packing again shrinks them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

TOLERABLE_ERROR = 0.25
"""Beyond this the report says what to do instead."""

_STEPS = (
    "WARNING: much of what the adapter does is gone. Packed weights move in steps, and a change of less than half a step rounds "
    "back to where it was."
)
_TERNARY = (
    "A ternary weight has three values and a scale that is computed anew, so about half of even a large change is lost, and a "
    "small one is outweighed by what packing again does to the base."
)
_INSTEAD = (
    "Merge with `exact=True`, which unpacks the layers and loses nothing, or keep the adapter beside the packed model."
)


@dataclass(frozen=True, slots=True)
class MergedLayer:
    """One weight that was merged and packed again.

    Attributes:
        name: Of the layer in the base model.
        scheme: The name of its scheme.
        size: |D|, the Frobenius norm of the change that the adapter makes.
        kept: <E, D> / <D, D>; 1 when the adapter changes nothing.
        error: |E - D| / |D|; 0 when both are nothing.
    """

    name: str
    scheme: str
    size: float
    kept: float
    error: float

    @classmethod
    def measure(
        cls, name: str, scheme: str, before: torch.Tensor, merged: torch.Tensor, packed: torch.Tensor
    ) -> MergedLayer:
        """Return the cost of one layer.

        Args:
            name: Of the layer.
            scheme: Of the weight.
            before: W, dense.
            merged: W + D, dense.
            packed: Q(W + D), dense.
        """
        wanted = merged.float() - before.float()
        arrived = packed.float() - before.float()
        size, missed = (torch.linalg.vector_norm(change).item() for change in (wanted, arrived - wanted))
        if size == 0:
            return cls(name, scheme, 0.0, 1.0, float("inf") if missed else 0.0)
        return cls(name, scheme, size, (arrived * wanted).sum().item() / size**2, missed / size)


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What `merge(model, exact=False)` did.

    Attributes:
        model: The base model, merged; it holds no adapter any more.
        adapters: The adapters that were merged.
        layers: The weights that were packed again; a dense layer loses nothing and is not listed.

    >>> layer = MergedLayer("fc1", "ternary", size=2.0, kept=0.55, error=0.56)
    >>> print(MergeReport(None, ("default",), (layer,)))
    'default' was merged into 1 packed layers.
    Its changes kept 55% of their size; relative error 0.56.
    fc1 (ternary): kept 55%, error 0.56
    <BLANKLINE>
    WARNING: much of what the adapter does is gone. Packed weights move in steps, and a change of less than half a step \
rounds back to where it was. A ternary weight has three values and a scale that is computed anew, so about half of even a large change \
is lost, and a small one is outweighed by what packing again does to the base. Merge with `exact=True`, which unpacks the layers and loses nothing, or keep the adapter beside the packed model.
    """

    model: nn.Module = field(repr=False)
    adapters: tuple[str, ...]
    layers: tuple[MergedLayer, ...]

    @property
    def kept(self) -> float:
        """The share of the whole change that arrived, over all layers; 1 when there is none."""
        total = sum(layer.size**2 for layer in self.layers)
        return sum(layer.kept * layer.size**2 for layer in self.layers) / total if total else 1.0

    @property
    def error(self) -> float:
        """Relative error of the whole change, over all layers; 0 when there is none."""
        total = sum(layer.size**2 for layer in self.layers)
        missed = sum((layer.error * layer.size) ** 2 for layer in self.layers if layer.size)
        return (missed / total) ** 0.5 if total else 0.0

    def __str__(self) -> str:
        names = ", ".join(map(repr, self.adapters))
        lines = [
            f"{names} was merged into {len(self.layers)} packed layers.",
            f"Its changes kept {self.kept:.0%} of their size; relative error {self.error:.2g}.",
        ]
        lines += [f"{e.name} ({e.scheme}): kept {e.kept:.0%}, error {e.error:.2g}" for e in self.layers]
        if warning := self._warning():
            lines += ["", warning]
        return "\n".join(lines)

    def _warning(self) -> str:
        if self.error <= TOLERABLE_ERROR:
            return ""
        ternary = any(layer.scheme == "ternary" for layer in self.layers)
        return " ".join((_STEPS, *[_TERNARY] * ternary, _INSTEAD))
