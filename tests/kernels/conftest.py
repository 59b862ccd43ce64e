"""One weight packed in every way, for rules that hold for all of them, and bitsandbytes without its compiler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch._C._profiler import _EventType

from bedstone.core.memory import free_workspaces
from bedstone.kernels import eightbit, fourbit, ternary
from bedstone.kernels.policies import policy

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Packed:
    """A packed weight with the operations of its format.

    Attributes:
        name: Of the format, as in `linear_<name>`.
        arguments: What describes the weight to each of its operations.
        linear: `(x, *arguments, bias)`.
        dequantize: `(*arguments, dtype)`.
    """

    name: str
    arguments: tuple[Any, ...]
    linear: Callable[..., torch.Tensor]
    dequantize: Callable[..., torch.Tensor]

    @property
    def linear_op(self):
        return getattr(torch.ops.bedstone, f"linear_{self.name}").default

    @property
    def input_grad_op(self):
        return getattr(torch.ops.bedstone, f"linear_{self.name}_input_grad").default

    @property
    def dense(self) -> torch.Tensor:
        return self.dequantize(*self.arguments, torch.float32)


def nf4(weight: torch.Tensor, *, nested: bool = False, code: str = "nf4") -> Packed:
    packed, absmax = fourbit.quantize_4bit(weight, 64, code)
    scales = fourbit.quantize_absmax(absmax) if nested else (absmax, None, None)
    arguments = (packed, *scales, list(weight.shape), 64, code)
    return Packed("4bit", arguments, fourbit.linear_4bit, fourbit.dequantize_4bit)


def eight(weight: torch.Tensor, dtype: torch.dtype = torch.int8, block_size: int = 0, tensor: bool = False) -> Packed:
    block_size = block_size or max(weight.shape[1], 1)
    codes, absmax = eightbit.quantize_8bit(weight, dtype, block_size, tensor)
    return Packed("8bit", (codes, absmax, block_size), eightbit.linear_8bit, eightbit.dequantize_8bit)


def trits(weight: torch.Tensor, block_size: int = 0, tensor: bool = False) -> Packed:
    block_size = block_size or max(weight.shape[1], 1)
    packed, scale = ternary.quantize_ternary(weight, block_size, tensor)
    arguments = (packed, scale, list(weight.shape), block_size)
    return Packed("ternary", arguments, ternary.linear_ternary, ternary.dequantize_ternary)


PACKERS = {
    "nf4": nf4,
    "nf4-nested": lambda weight: nf4(weight, nested=True),
    "fp4": lambda weight: nf4(weight, code="fp4"),
    "int8-row": eight,
    "int8-block": lambda weight: eight(weight, block_size=32),
    "e4m3fn-tensor": lambda weight: eight(weight, torch.float8_e4m3fn, tensor=True),
    "e5m2-block": lambda weight: eight(weight, torch.float8_e5m2, 32),
    "ternary-tensor": lambda weight: trits(weight, tensor=True),
    "ternary-row": trits,
    "ternary-block": lambda weight: trits(weight, 32),
}


@pytest.fixture(params=["exact", "reference"])
def implementation(request):
    """The best exact implementation of each operation, then plain torch; rounded ones have tests of their own."""
    with policy(request.param):
        yield request.param


@pytest.fixture(params=PACKERS)
def pack(request, implementation):
    """A way to pack a weight `[N, K]`, one after the other."""
    return PACKERS[request.param]


@pytest.fixture(params=PACKERS)
def pack_for_auto(request):
    """The same, computed by what is taken when nobody chooses."""
    with policy("auto"):
        yield PACKERS[request.param]


@pytest.fixture(params=["nf4", "fp4"])
def code(request, implementation):
    """The two 4-bit tables."""
    return request.param


@pytest.fixture(autouse=True)
def _fresh():
    """Each test starts as a process does: no buffer is kept yet, and the same random numbers follow."""
    free_workspaces()
    torch.manual_seed(0)


@pytest.fixture
def bnb():
    """Bitsandbytes' functions; what it would hand to a C++ compiler runs eagerly, with the same arithmetic."""
    functional = pytest.importorskip("bitsandbytes").functional
    with torch.compiler.set_stance("force_eager"):
        yield functional


def _measured_bytes(call):
    """The most that torch's allocator had handed out at a time during a call, its result left out."""
    free_workspaces()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
    sizes = []

    def collect(events):
        for event in events:
            if event.tag == _EventType.Allocation:
                sizes.append((event.start_time_ns, event.extra_fields.alloc_size))
            collect(event.children)

    collect(profile.profiler.kineto_results.experimental_event_tree())
    live = peak = 0
    for _, size in sorted(sizes, key=lambda entry: entry[0]):
        live += size
        peak = max(peak, live)
    return peak - sum(part.nbytes for part in (result if isinstance(result, tuple) else (result,)))


@pytest.fixture
def measured_bytes():
    """`(call)`: the most that torch's allocator had handed out at a time during a call, its result left out."""
    return _measured_bytes
