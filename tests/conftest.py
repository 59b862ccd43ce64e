"""Every test runs on one thread and starts with a quiet, configured-by-nobody bedstone."""

from __future__ import annotations

import os

import hypothesis
import pytest
import torch

# Children that tests start inherit it; two test workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


# Shared machines stall: a slow example is no failing one.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def events():
    """The events emitted during the test, in order."""
    from bedstone.core.events import add_sink

    seen = []
    remove = add_sink(seen.append)
    yield seen
    remove()
