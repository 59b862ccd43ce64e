"""The ways to pack a weight in eight bits that every implementation must take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels.eightbit import reference

if TYPE_CHECKING:
    from bedstone.kernels.implementation import KernelSpec
    from bedstone.kernels.samples import Packing

_BLOCK = 64


def _eight(dtype: torch.dtype, *, block: int = 0, tensor: bool = False) -> Packing:
    def options(spec: KernelSpec) -> tuple[Any, ...]:
        return (dtype, block or max(spec.columns, 1), tensor)

    def packed(weight: torch.Tensor, spec: KernelSpec) -> tuple[Any, ...]:
        return (*reference.quantize(weight, *options(spec)), options(spec)[1])

    return options, packed


PACKINGS = {
    "int8": _eight(torch.int8),
    "int8 in blocks": _eight(torch.int8, block=_BLOCK),
    "fp8": _eight(torch.float8_e4m3fn),
    "fp8 by tensor": _eight(torch.float8_e5m2, tensor=True),
}
