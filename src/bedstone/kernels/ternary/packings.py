"""The ways to pack a ternary weight that every implementation must take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bedstone.kernels.ternary import reference

if TYPE_CHECKING:
    import torch

    from bedstone.kernels.implementation import KernelSpec
    from bedstone.kernels.samples import Packing

_BLOCK = 64


def _trits(*, block: int = 0, tensor: bool = False) -> Packing:
    def options(spec: KernelSpec) -> tuple[Any, ...]:
        return (block or max(spec.columns, 1), tensor)

    def packed(weight: torch.Tensor, spec: KernelSpec) -> tuple[Any, ...]:
        return (*reference.quantize(weight, *options(spec)), [spec.rows, spec.columns], options(spec)[0])

    return options, packed


PACKINGS = {"ternary": _trits(tensor=True), "ternary by row": _trits(), "ternary in blocks": _trits(block=_BLOCK)}
