"""What can take the place of a module's forward, and the list that other packages add to.

A replacement recognises modules by what they hold, never by their class or by an import: `LlamaRMSNorm`, `Qwen2RMSNorm` and a copy of
either in somebody's repository are one kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bedstone.core.registry import Registry

if TYPE_CHECKING:
    from bedstone.kernels.implementation import Numerics
    from bedstone.kernels.registry import KernelOp

Forward = Callable[..., torch.Tensor]
"""Of a module and its inputs. It holds no module, so that the copy of a module computes with its own weights."""


@dataclass(frozen=True)
class Replacement:
    """Another way to compute what modules of one kind compute.

    Attributes:
        recognises: Of any module: whether it is of this kind.
        unfit: Of a recognised module: why it is left alone, to stand behind a colon; empty if it may be replaced.
        inputs: Of a recognised module: arguments to compare both forwards with, on its device, the floating ones of its dtype.
        make: Of a recognised module and what to call for `op`: new forwards. Several where modules that look alike compute differently; the
            nearest to the module's own is taken.
        op: The operation that the new forward calls, if it calls one.
        numerics: How near the new forward comes to the old one, the operation's own numerics aside.
    """

    recognises: Callable[[nn.Module], bool]
    unfit: Callable[[nn.Module], str]
    inputs: Callable[[nn.Module], tuple[torch.Tensor, ...]]
    make: Callable[[nn.Module, Callable[..., Any]], tuple[Forward, ...]]
    op: KernelOp | None = None
    numerics: Numerics = "exact"


replacements: Registry[Replacement] = Registry("replacement")
"""What `apply` knows besides ours, by name, and asks first: `replacements.add("acme_norm", replacement)`."""


def sample_rows(module: nn.Module, columns: int) -> torch.Tensor:
    """Return normal values `[2, 3, columns]` of the dtype and device of a module, one row of them very small.

    Args:
        module: It has a floating parameter.
        columns: Of a row.

    >>> sample_rows(nn.LayerNorm(4), 4).shape
    torch.Size([2, 3, 4])
    """
    like = next(each for each in module.parameters() if each.is_floating_point())
    rows = torch.randn(2, 3, columns, generator=torch.Generator().manual_seed(0))
    rows[1, 2] *= 1e-3  # where a wrong epsilon shows
    return rows.to(like.device, like.dtype)
