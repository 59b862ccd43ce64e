"""Whether two graphs compute the same: results and gradients, on the same inputs with the same random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree

from bedstone.core.errors import InvalidConfigError
from bedstone.kernels.agreement import Difference, difference, worst
from bedstone.kernels.graphs.inputs import copied

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from bedstone.kernels.implementation import Numerics


def compared(
    new: GraphModule, old: GraphModule, inputs: tuple[Any, ...], numerics: Numerics, *, gradients: bool
) -> Difference:
    """Return the largest difference of two graphs.

    Args:
        new: Its errors are raised as they are.
        old: What it should compute.
        inputs: Of both; they get copies.
        numerics: What the new one promises.
        gradients: Whether those of floating inputs and of trained weights are compared.

    Raises:
        InvalidConfigError: The old graph does not take the inputs.
    """
    expected = _ran_old(old, inputs)
    found = _outputs(new, copied(inputs, grad=False))
    result = _apart(found, expected, "output", numerics)
    if not gradients or not result.agrees:
        return result
    ours, theirs = _gradients(new, inputs), _gradients(old, inputs)
    return worst([result, _apart(ours, theirs, "gradient of", numerics)])


def _ran_old(old: GraphModule, inputs: tuple[Any, ...]) -> dict[str, Any]:
    try:
        return _outputs(old, copied(inputs, grad=False))
    except Exception as error:
        message = f"The graph does not take the `inputs`, {in_a_line(error)}."
        remedy = "Give arguments that `graph_module(*inputs)` takes."
        raise InvalidConfigError(message, argument="inputs", remedy=remedy) from error


def in_a_line(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says.

    >>> in_a_line(ValueError("Too large."))
    'ValueError: Too large'
    """
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '').rstrip('.')}"


def _outputs(graph: GraphModule, inputs: tuple[Any, ...], *, grad: bool = False) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(grad):
        torch.default_generator.manual_seed(0)
        return _by_path(graph(*inputs))


def _gradients(graph: GraphModule, inputs: tuple[Any, ...]) -> dict[str, Any]:
    given = copied(inputs, grad=True)
    outputs = [each for each in _outputs(graph, given, grad=True).values() if _differentiable(each)]
    wanted = {f"input{path}": each for path, each in _by_path(given).items() if _differentiable(each)}
    wanted |= {name: each for name, each in graph.named_parameters() if each.requires_grad}
    if not outputs or not wanted:
        return {}
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(each.shape, generator=generator).to(each) for each in outputs]
    found = torch.autograd.grad(outputs, list(wanted.values()), directions, allow_unused=True)
    return {name: each for name, each in zip(wanted, found, strict=True) if each is not None}


def _differentiable(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def _by_path(values: Any) -> dict[str, Any]:
    return {_pytree.keystr(path): value for path, value in _pytree.tree_flatten_with_path(values)[0]}


def _apart(found: dict[str, Any], expected: dict[str, Any], what: str, numerics: Numerics) -> Difference:
    if set(found) != set(expected):
        odd = ", ".join(sorted(set(found) ^ set(expected)))
        return Difference(float("inf"), 1.0, f"only one of both has the {what} {odd}".replace("  ", " "))
    return worst([_one(found[path], expected[path], f"the {what} {path}".strip(), numerics) for path in expected])


def _one(ours: Any, theirs: Any, what: str, numerics: Numerics) -> Difference:
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        return difference(ours, theirs, what, numerics)
    same = type(ours) is type(theirs) and ours == theirs
    return Difference(0.0, 1.0, "") if same else Difference(float("inf"), 1.0, f"{what} is {ours!r}, not {theirs!r}")
