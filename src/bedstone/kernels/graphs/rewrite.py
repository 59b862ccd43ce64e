"""Replacing what a graph computes in one way by another way, wherever it stands, if it gives the same.

The graph is copied, rewritten and run beside the original. A rewrite that gives something else is an error, and the original is
what it was.

    new = kernels.rewrite(torch.fx.symbolic_trace(model), pattern, replacement, inputs=(x,))

Matching is that of `torch.fx`: node by node, by operation, with every argument of the pattern standing for whatever the graph has there, a
number too. A pattern is therefore written in the operations of the graph: `torch.relu(x)` for a graph of `symbolic_trace`,
`torch.ops.aten.relu.default(x)` for an exported one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.fx import GraphModule, subgraph_rewriter

from bedstone.core.errors import InvalidConfigError
from bedstone.kernels.graphs.errors import RewriteError
from bedstone.kernels.graphs.inputs import inputs_of
from bedstone.kernels.graphs.trace import name_of, operations_in, placeholders_in, traced, working_copy
from bedstone.kernels.graphs.verify import compared, in_a_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bedstone.kernels.graphs.trace import Pattern
    from bedstone.kernels.implementation import Numerics

RECORD = "bedstone_rewrites"
"""The key of the records in the `meta` of a graph module."""


@dataclass(frozen=True)
class Rewrite:
    """What was rewritten in a graph.

    Attributes:
        name: Of the hint, or of the function that replaces.
        matches: How many times.
        largest: The largest difference that it made, relative.
        refused: Why it was not kept; empty if it was.
    """

    name: str
    matches: int
    largest: float = 0.0
    refused: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.refused or f'{self.matches} times, largest difference {self.largest:.2g}'}"


def rewrite(
    graph_module: GraphModule,
    pattern: Pattern,
    replacement: Pattern,
    *,
    inputs: Sequence[Any] | None = None,
    numerics: Numerics = "exact",
    gradients: bool = True,
    name: str = "",
) -> GraphModule:
    """Return a graph in which a pattern is replaced wherever it stands.

    Args:
        graph_module: Of `torch.fx.symbolic_trace`, or the `.module()` of an exported program. Not changed.
        pattern: A function of tensors, or its graph. What lies between its operations must have no other use in the graph.
        replacement: A function of as many arguments, in the same order.
        inputs: Arguments of the graph to compare both on. Without them random ones, where the graph knows its shapes, as an exported one does.
        numerics: How near the replacement comes: `exact` to 1e-5, `rounded` to 1e-3, `approximate` to 0.1, relative; halves by their own rounding more.
        gradients: Whether they are compared too.
        name: Of the rewrite in messages and records; that of the replacement if empty.

    Returns:
        A new graph module that shares weights and submodules with the old one; hooks are not taken over. `meta["bedstone_rewrites"]` lists its
        `Rewrite`s.

    Raises:
        RewriteError: The pattern is nowhere in the graph, or the new graph fails or computes something else.
        InvalidConfigError: An argument is not what it must be, or the graph does not take the inputs.

    >>> import torch
    >>> old = torch.fx.symbolic_trace(lambda x: torch.relu(x) + 1)
    >>> new = rewrite(old, lambda x: torch.relu(x), lambda x: x.clamp_min(0), inputs=(torch.randn(4),), name="clamp")
    >>> print(new.meta["bedstone_rewrites"][0])
    clamp: 1 times, largest difference 0
    """
    _check(graph_module, numerics)
    name = name or name_of(replacement)
    before, after = traced(pattern, "pattern"), traced(replacement, "replacement")
    if placeholders_in(before) != placeholders_in(after):
        message = f"`replacement` takes {placeholders_in(after)} arguments, the pattern {placeholders_in(before)}."
        raise InvalidConfigError(message, argument="replacement", value=name, remedy="Give both the same arguments.")
    new = working_copy(graph_module)
    found = _replaced(new, before, after)
    if not found:
        raise _nowhere(name, before, new)
    given = inputs_of(graph_module, inputs)
    largest = _verified(new, graph_module, given, numerics, gradients=gradients, name=name)
    new.meta[RECORD] = [*new.meta.get(RECORD, ()), Rewrite(name, found, largest)]
    return new


def _replaced(new: GraphModule, before: GraphModule, after: GraphModule) -> int:
    found = subgraph_rewriter.replace_pattern(new, before, after)
    new.graph.lint()
    new.recompile()
    return len(found)


def _verified(
    new: GraphModule, old: GraphModule, given: tuple[Any, ...], numerics: Numerics, *, gradients: bool, name: str
) -> float:
    try:
        apart = compared(new, old, given, numerics, gradients=gradients)
    except InvalidConfigError:
        raise
    except Exception as error:
        message = f"With `{name}` the graph fails, {in_a_line(error)}."
        raise RewriteError(message, rewrite=name, remedy="The graph is as it was.") from error
    if not apart.agrees:
        remedy = f"The graph is as it was. If that is near enough, say so by `numerics` (={numerics!r})."
        raise RewriteError(
            f"`{name}` computes something else: {apart}.", rewrite=name, remedy=remedy, largest=apart.largest
        )
    return apart.largest


def _check(graph_module: GraphModule, numerics: str) -> None:
    if not isinstance(graph_module, GraphModule):
        kind = type(graph_module).__name__
        remedy = "Trace it: `torch.fx.symbolic_trace(model)`, or `torch.export.export(model, inputs).module()`."
        raise InvalidConfigError(
            f"`graph_module` must be a torch.fx.GraphModule, not {kind}.",
            argument="graph_module",
            value=kind,
            remedy=remedy,
        )
    if numerics not in ("exact", "rounded", "approximate"):
        message = f"`numerics` (={numerics!r}) must be exact, rounded or approximate."
        raise InvalidConfigError(message, argument="numerics", value=numerics)


def _nowhere(name: str, before: GraphModule, graph: GraphModule) -> RewriteError:
    there = operations_in(graph)
    wanted = list(dict.fromkeys(operations_in(before)))
    missing = [each for each in wanted if each not in there]
    if missing:
        why = f"the graph has no {', no '.join(missing)}"
        remedy = f"The graph has {', '.join(dict.fromkeys(there)) or 'no operation'}. Write the pattern in these."
    else:
        why = f"the graph has {', '.join(wanted)}, but never so connected, or with another use of what lies between"
        remedy = "Compare `print(graph_module.graph)` with the pattern, node by node."
    return RewriteError(f"The pattern of `{name}` is nowhere in the graph: {why}.", rewrite=name, remedy=remedy)
