"""Every replacement in the order in which they are asked: those that others added, then ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.kernels.modules.gated_mlp import GATED_MLP
from bedstone.kernels.modules.norms import LAYER_NORM, RMS_NORM
from bedstone.kernels.modules.replacement import replacements

if TYPE_CHECKING:
    from bedstone.kernels.modules.replacement import Replacement

OURS = {"rms_norm": RMS_NORM, "layer_norm": LAYER_NORM, "gated_mlp": GATED_MLP}


def known_replacements() -> dict[str, Replacement]:
    """Return them by name; one of the same name as ours takes its place.

    >>> list(known_replacements())
    ['rms_norm', 'layer_norm', 'gated_mlp']
    """
    added = replacements.items()
    return {**added, **{name: each for name, each in OURS.items() if name not in added}}
