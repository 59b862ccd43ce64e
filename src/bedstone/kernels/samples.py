"""Arguments of every operation, made from a specification: what the conformance kit and the benchmark call implementations with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels import eightbit, fourbit, ternary
from bedstone.kernels.policies import policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bedstone.kernels.registry import KernelSpec

_BLOCK = 64


def packings(op: str) -> Sequence[str]:
    """Return the ways to pack a weight that an operation on packed weights must take; one empty name for another operation.

    >>> packings("linear_8bit")
    ('int8', 'int8 in blocks', 'fp8', 'fp8 by tensor')
    """
    return next((tuple(ways) for part, ways in _PACKED.items() if f"_{part}" in op), ("",))


def sample(op: str, spec: KernelSpec, packing: str = "", *, seed: int = 0) -> tuple[Any, ...]:
    """Return arguments for an operation.

    Args:
        op: The operation's own name.
        spec: Their specification. Of a weight that is quantized or dequantized, its size and dtype.
        packing: One of `packings(op)`; empty for the first.
        seed: Of the random values.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(spec.device, spec.dtype)

    if op == "linear_cross_entropy":
        labels = torch.randint(0, spec.rows, (spec.inputs,), generator=generator).to(spec.device)
        hidden, weight = normal(spec.inputs, spec.columns), normal(spec.rows, spec.columns)
        return (hidden, weight, None, labels, None, -100, 0.0, 0.0, 0.0, True, False)
    format_ = next(part for part in _PACKED if f"_{part}" in op)
    quantize, options = _PACKED[format_][packing or packings(op)[0]]
    weight = normal(spec.rows, spec.columns)
    if op.startswith("quantize"):
        return (weight, *options(spec))
    with policy("reference"):
        packed = quantize(weight, spec)
    if op.startswith("dequantize"):
        return (*packed, spec.dtype)
    if op.endswith("input_grad"):
        return (normal(spec.inputs, spec.rows), *packed)
    return (normal(spec.inputs, spec.columns), *packed, normal(spec.rows))


def _four(code: str, *, nested: bool = False) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def quantize(weight: torch.Tensor, spec: KernelSpec) -> tuple[Any, ...]:
        packed, absmax = fourbit.quantize_4bit(weight, _BLOCK, code)
        scales = fourbit.quantize_absmax(absmax) if nested else (absmax, None, None)
        return (packed, *scales, [spec.rows, spec.columns], _BLOCK, code)

    return quantize, lambda spec: (_BLOCK, code)  # noqa: ARG005


def _eight(
    dtype: torch.dtype, *, block: int = 0, tensor: bool = False
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def options(spec: KernelSpec) -> tuple[Any, ...]:
        return (dtype, block or max(spec.columns, 1), tensor)

    def quantize(weight: torch.Tensor, spec: KernelSpec) -> tuple[Any, ...]:
        return (*eightbit.quantize_8bit(weight, *options(spec)), options(spec)[1])

    return quantize, options


def _trits(*, block: int = 0, tensor: bool = False) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def options(spec: KernelSpec) -> tuple[Any, ...]:
        return (block or max(spec.columns, 1), tensor)

    def quantize(weight: torch.Tensor, spec: KernelSpec) -> tuple[Any, ...]:
        return (*ternary.quantize_ternary(weight, *options(spec)), [spec.rows, spec.columns], options(spec)[0])

    return quantize, options


_PACKED = {
    "4bit": {"nf4": _four("nf4"), "nf4, double": _four("nf4", nested=True), "fp4": _four("fp4")},
    "8bit": {
        "int8": _eight(torch.int8),
        "int8 in blocks": _eight(torch.int8, block=_BLOCK),
        "fp8": _eight(torch.float8_e4m3fn),
        "fp8 by tensor": _eight(torch.float8_e5m2, tensor=True),
    },
    "ternary": {"ternary": _trits(tensor=True), "ternary by row": _trits(), "ternary in blocks": _trits(block=_BLOCK)},
}
