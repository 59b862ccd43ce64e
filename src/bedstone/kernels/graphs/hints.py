"""Rewrites that are known to help, tried one after the other.

Ours put an operation of the registry in the place of what models write out: `rms_norm` for the norm of Llama and its relatives, `glu` for
`silu(gate) * up`. The first saves calls of torch on every device; the second computes the same on a CPU, and is there for devices with a
kernel for it. Each comes twice, in the operations of `symbolic_trace` and in those of `torch.export`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from bedstone.core.errors import InvalidConfigError
from bedstone.kernels.gated.op import glu_op
from bedstone.kernels.graphs.errors import RewriteError
from bedstone.kernels.graphs.rewrite import RECORD, Rewrite, rewrite
from bedstone.kernels.graphs.trace import working_copy
from bedstone.kernels.norms.op import rms_norm_op

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bedstone.kernels.graphs.trace import Pattern
    from bedstone.kernels.implementation import Numerics

aten = torch.ops.aten


@dataclass(frozen=True)
class FusionHint:
    """A rewrite to try.

    Attributes:
        name: Of the rewrite.
        pattern: As for `rewrite`.
        replacement: As for `rewrite`.
        numerics: How near the replacement comes.
    """

    name: str
    pattern: Pattern
    replacement: Pattern
    numerics: Numerics = "exact"


def rewrite_all(
    graph_module: fx.GraphModule, hints: Iterable[FusionHint] | None = None, inputs: Sequence[Any] | None = None
) -> fx.GraphModule:
    """Return a graph with every hint tried, each on what those before it left.

    Args:
        graph_module: As for `rewrite`. Not changed.
        hints: `FUSION_HINTS` if none are given.
        inputs: As for `rewrite`.

    Returns:
        A new graph module. `meta["bedstone_rewrites"]` has a `Rewrite` for each hint, also for those that were found nowhere or would compute
        something else, with the reason.

    Raises:
        InvalidConfigError: An argument is not what it must be, or the graph does not take the inputs.

    >>> old = fx.symbolic_trace(lambda gate, up: F.silu(gate) * up)
    >>> new = rewrite_all(old, inputs=(torch.randn(2, 4), torch.randn(2, 4)))
    >>> [(each.name, each.matches) for each in new.meta["bedstone_rewrites"] if each.matches]
    [('swiglu', 1)]
    """
    if not isinstance(graph_module, fx.GraphModule):
        kind = type(graph_module).__name__
        message = f"`graph_module` must be a torch.fx.GraphModule, not {kind}."
        raise InvalidConfigError(message, argument="graph_module", value=kind)
    new = working_copy(graph_module)
    for hint in FUSION_HINTS if hints is None else hints:
        try:
            new = rewrite(new, hint.pattern, hint.replacement, inputs=inputs, numerics=hint.numerics, name=hint.name)
        except RewriteError as error:
            new.meta[RECORD] = [*new.meta.get(RECORD, ()), Rewrite(hint.name, 0, refused=error.message)]
    return new


@fx.wrap
def fused_rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return `rms_norm` as Llama has it; a node of its own in a graph."""
    return rms_norm_op(x, weight, eps, 0.0, "llama")


@fx.wrap
def fused_swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return `silu(gate) * up`; a node of its own in a graph."""
    return glu_op(gate, up, "silu")


def _rms_norm(x: Any, weight: Any, eps: Any) -> Any:
    dtype = x.dtype
    x = x.to(torch.float32)
    variance = x.pow(2).mean(-1, keepdim=True)
    x = x * torch.rsqrt(variance + eps)
    return weight * x.to(dtype)


def _rms_norm_aten(x: Any, weight: Any, eps: Any, dtype: Any) -> Any:
    x = aten.to.dtype(x, torch.float32)
    variance = aten.mean.dim(aten.pow.Tensor_Scalar(x, 2), [-1], True)
    x = aten.mul.Tensor(x, aten.rsqrt.default(aten.add.Tensor(variance, eps)))
    return aten.mul.Tensor(weight, aten.to.dtype(x, dtype))


def _fused_rms_norm(x: Any, weight: Any, eps: Any) -> Any:
    return fused_rms_norm(x, weight, eps)


def _fused_rms_norm_of_dtype(x: Any, weight: Any, eps: Any, dtype: Any) -> Any:
    del dtype  # that of x, as the comparison proves
    return fused_rms_norm(x, weight, eps)


def _swiglu(gate: Any, up: Any) -> Any:
    return F.silu(gate) * up


def _swiglu_aten(gate: Any, up: Any) -> Any:
    return aten.mul.Tensor(aten.silu.default(gate), up)


def _fused_swiglu(gate: Any, up: Any) -> Any:
    return fused_swiglu(gate, up)


FUSION_HINTS = (
    FusionHint("rms_norm", _rms_norm, _fused_rms_norm),
    FusionHint("rms_norm of torch.export", _rms_norm_aten, _fused_rms_norm_of_dtype),
    FusionHint("swiglu", _swiglu, _fused_swiglu),
    FusionHint("swiglu of torch.export", _swiglu_aten, _fused_swiglu),
)
"""The rewrites that bedstone knows; a list of your own may hold them too."""
