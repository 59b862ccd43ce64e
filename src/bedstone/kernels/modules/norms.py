"""Norms: modules with a weight and an epsilon.

Root mean square norms differ in two things that no attribute tells: whether 1 is added to the weight (Gemma keeps the distance from 1), and
where halves are rounded (see `kernels.rms_norm`). All four ways are tried; the nearest is taken.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bedstone.kernels.modules.replacement import Forward, Replacement, sample_rows
from bedstone.kernels.norms.op import ROUNDINGS, layer_norm_op, rms_norm_op

if TYPE_CHECKING:
    from collections.abc import Callable

_EPSILONS = ("variance_epsilon", "eps", "epsilon")


def _holds(module: nn.Module, *parameters: str) -> bool:
    own = vars(module).get("_parameters", {})  # TorchScript keeps them elsewhere
    vectors = all(each is None or each.ndim == 1 for each in own.values())
    nothing_else = not module._buffers and not module._modules  # noqa: SLF001 - no other way to ask without a walk
    return (
        set(own) == set(parameters)
        and own["weight"] is not None
        and vectors
        and nothing_else
        and _epsilon(module) != ""
    )


def _epsilon(module: nn.Module) -> str:
    return next((name for name in _EPSILONS if name in vars(module)), "")


def _inputs(module: Any) -> tuple[torch.Tensor, ...]:
    return (sample_rows(module, module.weight.shape[0]),)


def _rms_forwards(module: Any, call: Callable[..., Any]) -> tuple[Forward, ...]:
    epsilon = _epsilon(module)
    default = torch.finfo(module.weight.dtype).eps

    def made(offset: float, rounding: str) -> Forward:
        def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
            eps = getattr(self, epsilon)
            return call(x, self._parameters["weight"], default if eps is None else eps, offset, rounding)

        return forward

    return tuple(made(*options) for options in itertools.product((0.0, 1.0), ROUNDINGS))


def _layer_forwards(module: nn.Module, call: Callable[..., Any]) -> tuple[Forward, ...]:
    epsilon = _epsilon(module)

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        own = self._parameters
        return call(x, own["weight"], own["bias"], getattr(self, epsilon))

    return (forward,)


RMS_NORM = Replacement(
    recognises=lambda module: _holds(module, "weight"),
    unfit=lambda module: "",  # noqa: ARG005 - what is recognised can be tried
    inputs=_inputs,
    make=_rms_forwards,
    op=rms_norm_op,
)
LAYER_NORM = Replacement(
    recognises=lambda module: _holds(module, "weight", "bias") and not hasattr(module, "num_groups"),
    unfit=lambda module: "",  # noqa: ARG005 - as above
    inputs=_inputs,
    make=_layer_forwards,
    op=layer_norm_op,
)
