"""What a graph is compared on: the inputs that were given, or random ones of the shapes that the graph was traced with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree

from bedstone.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.fx import GraphModule, Node


def inputs_of(graph: GraphModule, given: Sequence[Any] | None) -> tuple[Any, ...]:
    """Return the arguments to call a graph with.

    Args:
        graph: Traced by `symbolic_trace` or exported.
        given: A tuple of arguments, or none.

    Raises:
        InvalidConfigError: The graph does not take them; or none are given and the graph does not know their shapes.
    """
    if given is None:
        return _random(graph)
    if isinstance(given, torch.Tensor) or not isinstance(given, (tuple, list)):
        message = f"`inputs` must be a tuple of arguments, not {type(given).__name__}."
        raise InvalidConfigError(message, argument="inputs", value=type(given).__name__, remedy="Write `inputs=(x,)`.")
    return tuple(given)


def copied(inputs: tuple[Any, ...], *, grad: bool) -> tuple[Any, ...]:
    """Return arguments that a graph may change.

    Args:
        inputs: Any structure of tensors and other values.
        grad: Whether floating tensors ask for a gradient.
    """

    def copy(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.detach().clone().requires_grad_(grad and value.is_floating_point())

    return _pytree.tree_map(copy, inputs)


def _random(graph: GraphModule) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(0)
    nodes = [node for node in graph.graph.nodes if node.op == "placeholder"]
    flat = [_like(node, generator) for node in nodes]
    spec = getattr(graph, "_in_spec", None)  # of an exported program, whose placeholders are its arguments laid flat
    if spec is None:
        return tuple(flat)
    args, named = _pytree.tree_unflatten(flat, spec)
    if named:
        message = f"The graph takes arguments by name ({', '.join(named)}), which random ones cannot be made for."
        raise InvalidConfigError(message, argument="inputs", remedy="Export it with positional arguments.")
    return tuple(args)


def _like(node: Node, generator: torch.Generator) -> Any:
    value = node.meta.get("val", node.meta.get("tensor_meta"))
    if value is None or not hasattr(value, "dtype"):
        message = f"The graph does not know the shape of its argument `{node.name}`."
        remedy = "Give example arguments: `inputs=(x,)`."
        raise InvalidConfigError(message, argument="inputs", remedy=remedy)
    shape = [int(size) for size in value.shape]
    device = getattr(value, "device", torch.device("cpu"))
    if value.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(device, value.dtype)
    return torch.randint(0, 2, shape, generator=generator).to(device, value.dtype)
