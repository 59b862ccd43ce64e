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


def pytest_configure(config):
    """What a user measured or converted on this machine decides no test; children inherit it."""
    os.environ["BEDSTONE_CACHE"] = str(config.rootpath / ".pytest_cache" / "bedstone")


# Shared machines stall: a slow example is no failing one.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def on_the_cpu():
    """The CPU is chosen, so that no run of the module warns of a fallback; the choice that a test before it left is forgotten."""
    from bedstone.core.device import get_device, select

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEDSTONE_FORCE_CPU", "1")
        get_device(refresh=True)
        yield
    select._environment.cache_clear()
    select._devices.clear()


@pytest.fixture
def events():
    """The events emitted during the test, in order."""
    from bedstone.core.events import add_sink

    seen = []
    remove = add_sink(seen.append)
    yield seen
    remove()


@pytest.fixture(scope="session")
def bitsandbytes_dense():
    """`(packed, quant_state)`: the dense weight by the torch formula of bitsandbytes.

    Its compiled unpacking is another one on each kind of CPU: with AVX-512, version 0.50.2 takes wrong scales for rows that end inside a block
    and flushes subnormal bfloat16. The formula is right everywhere. It knows no -0 of FP4, so compare values, not bits.
    """
    functional = pytest.importorskip("bitsandbytes", reason="bitsandbytes, the oracle, is not installed").functional
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

    def dense(packed, state):
        absmax = state.absmax
        with torch.compiler.set_stance("force_eager"):  # the same arithmetic without half a minute of C++ compiler
            if state.nested:
                absmax = functional.dequantize_blockwise(absmax, state.state2) + state.offset
            codes = packed.reshape(-1).view(torch.uint8)
            return _dequantize_4bit_compute(codes, absmax, state.code, state.blocksize, state.shape, state.dtype)

    return dense


@pytest.fixture
def exact_kernels(monkeypatch):
    """Products to the rounding of float32, also in processes that a test starts: for claims of equality, not of speed."""
    from bedstone.kernels import forget_choices

    monkeypatch.setenv("BEDSTONE_KERNELS", "exact")
    forget_choices()
    yield
    monkeypatch.undo()
    forget_choices()
