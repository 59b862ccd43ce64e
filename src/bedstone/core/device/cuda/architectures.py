"""Does this PyTorch hold kernels for that GPU? The vendors' rules of compatibility, as arithmetic.

NVIDIA: machine code `sm_XY` runs on compute capability X.Z with Z >= Y, but not across the line between Tegra chips and
the others; `sm_XYa` runs on X.Y alone, `sm_XYf` like `sm_XY`; `compute_XY` is compiled on the spot for any later one.
AMD: machine code runs on its own architecture; features after a colon (`gfx90a:xnack-`) are not part of the name.

References:
    NVIDIA, CUDA Programming Guide, "Compute Capabilities"
    PyTorch 2.13, `torch/cuda/__init__.py`, `DEVICE_REQUIREMENT` (the Tegra exceptions)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_TEGRA = {(5, 3), (6, 2), (7, 2), (8, 7)}  # chips whose machine code is their own


def supports(capability: str, built_for: Sequence[str]) -> bool:
    """Tell whether code built for these architectures runs on this one.

    Args:
        capability: `9.0` or `gfx942`.
        built_for: As `torch.cuda.get_arch_list()` returns; when empty, nothing is known against it.

    >>> supports("8.9", ["sm_80", "sm_90"]), supports("6.1", ["sm_80"]), supports("12.0", ["compute_90"])
    (True, False, True)
    >>> supports("gfx90a", ["gfx90a:xnack-"]), supports("gfx1100", ["gfx90a"])
    (True, False)
    """
    if capability.startswith("gfx"):
        return not built_for or capability in {arch.split(":")[0] for arch in built_for}
    major, minor = (int(part) for part in capability.split("."))
    return not built_for or any(_runs_on((major, minor), arch) for arch in built_for)


def _runs_on(device: tuple[int, int], arch: str) -> bool:
    parts = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
    if parts is None:
        return False
    code = int(parts[2]), int(parts[3])
    if parts[4] == "a":
        return device == code
    if parts[1] == "compute":
        return device >= code
    if device in _TEGRA or code in _TEGRA:
        return device == code
    return device[0] == code[0] and device[1] >= code[1]
