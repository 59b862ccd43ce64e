"""Gated feed-forward blocks: `down_proj(act_fn(gate_proj(x)) * up_proj(x))`.

The projections are called as they are: packed, adapted by peft, watched by hooks. What the activation computes is found out by
calling it, since it may be a module, a function or a partial one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from bedstone.kernels.modules.replacement import Forward, Replacement, sample_rows

if TYPE_CHECKING:
    from collections.abc import Callable

_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def _recognises(module: nn.Module) -> bool:
    children = vars(module)["_modules"]
    return all(children.get(name) is not None for name in _PROJECTIONS) and hasattr(module, "act_fn")


def _activation(module: nn.Module) -> str:
    probe = torch.linspace(-6, 6, 25)
    with torch.no_grad():
        found = module.act_fn(probe)
    return next((name for name, each in ACTIVATIONS.items() if torch.allclose(found, each(probe), rtol=0, atol=1e-6)), "")


def _unfit(module: nn.Module) -> str:
    if not isinstance(getattr(module.gate_proj, "in_features", None), int):
        return "its gate projection does not tell its width"
    return "" if _activation(module) else "its activation is neither SiLU nor GELU"


def _inputs(module: nn.Module) -> tuple[torch.Tensor, ...]:
    columns: Any = module.gate_proj.in_features
    return (sample_rows(module, columns),)


def _forwards(module: nn.Module, call: Callable[..., Any]) -> tuple[Forward, ...]:
    del call
    activation = ACTIVATIONS[_activation(module)]

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(activation(self.gate_proj(x)) * self.up_proj(x))

    return (forward,)


GATED_MLP = Replacement(recognises=_recognises, unfit=_unfit, inputs=_inputs, make=_forwards)
