"""The ways to pack a weight in four bits that every implementation must take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bedstone.kernels.fourbit import reference

if TYPE_CHECKING:
    import torch

    from bedstone.kernels.implementation import KernelSpec
    from bedstone.kernels.samples import Packing

_BLOCK = 64


def _four(code: str, *, nested: bool = False) -> Packing:
    def packed(weight: torch.Tensor, spec: KernelSpec) -> tuple[Any, ...]:
        codes, absmax = reference.quantize(weight, _BLOCK, code)
        scales = reference.quantize_absmax(absmax) if nested else (absmax, None, None)
        return (codes, *scales, [spec.rows, spec.columns], _BLOCK, code)

    return lambda spec: (_BLOCK, code), packed  # noqa: ARG005


PACKINGS = {"nf4": _four("nf4"), "nf4, double": _four("nf4", nested=True), "fp4": _four("fp4")}
