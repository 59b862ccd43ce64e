"""Which GPUs a build's kernels run on; PyTorch's own table is the independent oracle."""

from __future__ import annotations

import pytest
import torch

from bedstone.core.device.cuda.architectures import supports

# 10.1 is an older name of 11.0, a renaming of one chip that PyTorch allows for and the vendor's rule does not state.
DEVICES = sorted(set(torch.cuda.DEVICE_REQUIREMENT) - {101, 110})


@pytest.mark.parametrize("code", DEVICES)
@pytest.mark.parametrize("device", DEVICES)
def test_agrees_with_pytorch(device, code):
    """Every pair: same major, minor not smaller, Tegra apart."""
    expected = device in torch.cuda.DEVICE_REQUIREMENT[code]
    assert supports(f"{device // 10}.{device % 10}", [f"sm_{code}"]) == expected


@pytest.mark.parametrize(
    ("capability", "archs", "expected"),
    [
        ("9.0", ["sm_90a"], True),
        ("10.3", ["sm_100a"], False),
        ("10.3", ["sm_100f"], True),
        ("12.1", ["sm_80", "compute_90"], True),
        ("7.5", ["compute_80"], False),
        ("9.0", ["nonsense"], False),
        ("9.0", [], True),
        ("gfx942", ["gfx90a", "gfx942"], True),
        ("gfx90a", ["gfx90a:sramecc+:xnack-"], True),
        ("gfx1030", ["gfx90a", "gfx942"], False),
    ],
)
def test_suffixes_intermediate_code_and_amd(capability, archs, expected):
    """With nothing known about the build, nothing speaks against the GPU."""
    assert supports(capability, archs) is expected
