"""Adapters and merges are compared with what they stand for."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _exact(exact_kernels):
    """To the rounding of float32."""
