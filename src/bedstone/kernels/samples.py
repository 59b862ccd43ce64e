"""Arguments of every operation, made from a specification: what the conformance kit and the benchmark call implementations with.

An operation brings functions that make its arguments (`KernelOp.samples`), one for each way to pack a weight. Those of packed weights are alike
but for how a weight is packed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bedstone.kernels.implementation import KernelSpec
    from bedstone.kernels.registry import KernelOp, Sample

    Packing = tuple[Callable[[KernelSpec], tuple[Any, ...]], Callable[..., tuple[Any, ...]]]
    """How to quantize for a specification, beside the weight; and a packed weight's arguments, of a weight and a specification."""

Part = Literal["quantize", "dequantize", "linear", "input_grad"]


def sample(op: KernelOp, spec: KernelSpec, kind: str = "", *, seed: int = 0) -> tuple[Any, ...]:
    """Return arguments for an operation.

    Args:
        op: The operation.
        spec: Their specification. Of a weight that is quantized or dequantized, its size and dtype.
        kind: One of `op.samples`; empty for the first.
        seed: Of the random values.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(spec.device, spec.dtype)

    return op.samples[kind or next(iter(op.samples))](spec, normal)


def packed_samples(part: Part, packings: Mapping[str, Packing]) -> dict[str, Sample]:
    """Return the samples of an operation on packed weights.

    Args:
        part: Which of a format's operations.
        packings: By name, the ways to pack.
    """
    return {name: _maker(part, *packing) for name, packing in packings.items()}


def _maker(part: Part, options: Callable[..., tuple[Any, ...]], packed: Callable[..., tuple[Any, ...]]) -> Sample:
    def make(spec: KernelSpec, normal: Callable[..., torch.Tensor]) -> tuple[Any, ...]:
        weight = normal(spec.rows, spec.columns)
        if part == "quantize":
            return (weight, *options(spec))
        arguments = packed(weight, spec)
        if part == "dequantize":
            return (*arguments, spec.dtype)
        if part == "input_grad":
            return (normal(spec.inputs, spec.rows), *arguments)
        return (normal(spec.inputs, spec.columns), *arguments, normal(spec.rows))

    return make
