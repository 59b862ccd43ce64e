"""Each device test starts as a fresh process would: nothing chosen, nothing said, no variable set."""

from __future__ import annotations

import pytest

from bedstone.core.device import DeviceConfig, backend_names, backends, candidate_rows, choose, select
from bedstone.core.device.environment import PREFIXES


def _forget():
    select._devices.clear()
    select._said._keys.clear()
    select._environment.cache_clear()
    select._automatic_cause.cache_clear()


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch):
    names = [prefix + name for prefix in PREFIXES for name in ("FORCE_CPU", "CUDA_DEVICE")]
    for name in (*names, "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    _forget()
    yield
    _forget()


@pytest.fixture
def no_accelerator():
    """Skips where an accelerator works: a fallback cannot be had there."""
    rows = [row for name in backend_names() for row in candidate_rows(name)]
    cause = choose(DeviceConfig(), rows).cause
    if cause is None:
        pytest.skip("this machine has an accelerator")
    return cause


@pytest.fixture
def install():
    """Returns a function that registers a backend for the length of the test."""
    added = []

    def add(backend):
        backends.add(backend.name, backend)
        added.append(backend.name)
        return backend

    yield add
    for name in added:
        backends._members.pop(name)
