"""A new forward beside the module's own, on the same inputs: results, gradients, and how many calls of torch each makes.

Both run with the same random numbers, so that dropout inside a module draws the same. Gradients are those of the inputs and of the
module's own parameters, not of its children's, which either forward calls as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from bedstone.kernels.agreement import Difference, difference, worst

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from bedstone.kernels.implementation import Numerics
    from bedstone.kernels.modules.replacement import Forward


@dataclass(frozen=True)
class Trial:
    """What came out.

    Attributes:
        output: The largest difference of a result.
        gradient: The largest difference of a gradient; nothing where results differ too much already.
        calls_before: Calls of torch in the module's own forward.
        calls: Calls of torch in the new one.
    """

    output: Difference
    gradient: Difference
    calls_before: int
    calls: int

    @property
    def apart(self) -> Difference:
        """The larger of both."""
        return worst([self.output, self.gradient])


def compare(module: nn.Module, forward: Forward, inputs: tuple[torch.Tensor, ...], numerics: Numerics) -> Trial:
    """Run a module's own forward and a new one.

    Args:
        module: Not changed.
        forward: Of the module and its inputs.
        inputs: Leading dimension: several rows; the first alone is tried too.
        numerics: What the new forward promises.
    """

    def new(*args: torch.Tensor) -> torch.Tensor:
        return forward(module, *args)

    first = tuple(each[:1, :1] for each in inputs)
    one_row = difference(_plain(new, first)[0], _plain(module.forward, first)[0], "the output of one row", numerics)
    ours, calls = _plain(new, inputs)
    theirs, calls_before = _plain(module.forward, inputs)
    output = worst([one_row, difference(ours, theirs, "the output", numerics)])
    gradient = worst(_gradients(module, new, inputs, numerics) if output.agrees else [])
    return Trial(output, gradient, calls_before, calls)


def _plain(call: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, int]:
    with torch.no_grad(), _Counted() as counted:
        return _seeded(call, inputs), counted.calls


def _gradients(
    module: nn.Module, new: Callable[..., Any], inputs: tuple[torch.Tensor, ...], numerics: Numerics
) -> list[Difference]:
    own = {f"the gradient of {name}": p for name, p in module.named_parameters(recurse=False) if p.requires_grad}
    ours, theirs = (_derived(call, inputs, list(own.values())) for call in (new, module.forward))
    names = [f"the gradient of input {number}" for number in range(len(ours) - len(own))] + list(own)
    found: list[Difference] = []
    for name, a, b in zip(names, ours, theirs, strict=True):
        if a is not None and b is not None:
            found.append(difference(a, b, name, numerics))
        elif a is not b:
            found.append(
                Difference(float("inf"), 1.0, f"{name} is missing from {'the new' if a is None else 'its own'}")
            )
    return found


def _derived(
    call: Callable[..., Any], inputs: tuple[torch.Tensor, ...], parameters: list[torch.nn.Parameter]
) -> tuple[torch.Tensor | None, ...]:
    with torch.enable_grad():
        watched = [each.detach().clone().requires_grad_(each.is_floating_point()) for each in inputs]
        out = _seeded(call, tuple(watched))
        wanted = [each for each in watched if each.requires_grad] + parameters
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
        return torch.autograd.grad(out, wanted, direction, allow_unused=True)


def _seeded(call: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    device = inputs[0].device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(0)
        if device.type == "cuda":
            torch.cuda.manual_seed(0)
        return call(*inputs)


class _Counted(TorchFunctionMode):
    """Counts the calls of torch that Python makes; asking a tensor for its dtype is none."""

    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += getattr(func, "__name__", "") != "__get__"
        return func(*args, **(kwargs or {}))
