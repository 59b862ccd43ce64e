"""A graph to work on, and the graphs of a pattern and its replacement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Graph, GraphModule, symbolic_trace

from bedstone.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    Pattern = Callable[..., Any] | GraphModule
    """A function of tensors, traced symbolically; or what traced it already, such as `make_fx` for operations of aten."""

_WATCHERS = (torch.ops.aten._assert_tensor_metadata.default,)  # noqa: SLF001 - that is its name


def working_copy(graph: GraphModule) -> GraphModule:
    """Return a graph module that shares weights and submodules with another and has a graph of its own.

    `torch.export` notes the dtype of steps between by assertions in the graph; they are left out, since a fusion has no such steps.

    Args:
        graph: Not changed. Its hooks are not taken over.
    """
    copy = Graph(tracer_cls=graph.graph._tracer_cls)  # noqa: SLF001 - as GraphModule's own copy does
    out = copy.graph_copy(graph.graph, val_map={})
    copy.output(out)
    copy.set_codegen(graph.graph._codegen)  # noqa: SLF001 - how the arguments of an exported program are laid flat
    for node in [node for node in copy.nodes if node.target in _WATCHERS]:
        copy.erase_node(node)
    new = GraphModule(graph, copy, graph.__class__.__name__)
    new.meta.update(graph.meta)
    return new


def traced(function: Pattern, argument: str) -> GraphModule:
    """Return the graph of a pattern.

    Args:
        function: Or its graph.
        argument: What it is called in messages.

    Raises:
        InvalidConfigError: It cannot be traced, or computes nothing.
    """
    if isinstance(function, GraphModule):
        found = function
    elif callable(function):
        try:
            found = symbolic_trace(function)
        except Exception as error:
            message = f"`{argument}` (={name_of(function)}) cannot be traced, {type(error).__name__}: {error}"
            remedy = "A pattern is a function of tensors without branches on their values; or hand over a graph of it."
            raise InvalidConfigError(message, argument=argument, value=name_of(function), remedy=remedy) from error
    else:
        message = f"`{argument}` must be a function or a GraphModule, not {type(function).__name__}."
        raise InvalidConfigError(message, argument=argument, value=type(function).__name__)
    if not operations_in(found):
        message = f"`{argument}` (={name_of(function)}) contains no operation."
        raise InvalidConfigError(message, argument=argument, value=name_of(function))
    return found


def operations_in(graph: GraphModule) -> list[str]:
    """Return the operations of a graph by the names that a pattern must have, in order; a method as `.pow`.

    >>> operations_in(symbolic_trace(lambda x: torch.relu(x).pow(2)))
    ['torch.relu', '.pow']
    """
    return [_told(node) for node in graph.graph.nodes if node.op in ("call_function", "call_method")]


def placeholders_in(graph: GraphModule) -> int:
    """Return how many arguments a graph takes."""
    return sum(node.op == "placeholder" for node in graph.graph.nodes)


def name_of(function: object) -> str:
    """Return what to call a function in messages."""
    return getattr(function, "__name__", type(function).__name__)


def _told(node: torch.fx.Node) -> str:
    if node.op == "call_method":
        return f".{node.target}"
    return str(node._pretty_print_target(node.target))  # noqa: SLF001 - the name that a printed graph has
