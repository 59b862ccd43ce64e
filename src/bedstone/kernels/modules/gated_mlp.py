"""Gated feed-forward blocks: `down_proj(act_fn(gate_proj(x)) * up_proj(x))`.

The projections are called as they are: packed, adapted by peft, watched by hooks. What the activation computes is found out by
calling it, since it may be a module, a function or a partial one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels.gated.op import ACTIVATIONS, glu, glu_op
from bedstone.kernels.modules.replacement import Forward, Replacement, sample_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def _recognises(module: nn.Module) -> bool:
    children = vars(module).get("_modules", {})
    return all(children.get(name) is not None for name in _PROJECTIONS) and hasattr(module, "act_fn")


def _activation(module: Any) -> str:
    probe = torch.linspace(-6, 6, 25)
    with torch.no_grad():
        found, one = module.act_fn(probe), torch.ones(25)
        return next(
            (name for name in ACTIVATIONS if torch.allclose(found, glu(probe, one, name), rtol=0, atol=1e-6)), ""
        )


def _unfit(module: Any) -> str:
    if not isinstance(getattr(module.gate_proj, "in_features", None), int):
        return "its gate projection does not tell its width"
    return "" if _activation(module) else "its activation is neither SiLU nor GELU"


def _inputs(module: Any) -> tuple[torch.Tensor, ...]:
    return (sample_rows(module, module.gate_proj.in_features),)


def _forwards(module: nn.Module, call: Callable[..., Any]) -> tuple[Forward, ...]:
    activation = _activation(module)

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(call(self.gate_proj(x), self.up_proj(x), activation))

    return (forward,)


GATED_MLP = Replacement(recognises=_recognises, unfit=_unfit, inputs=_inputs, make=_forwards, op=glu_op)
