"""Gated units as people call them, their checks and their implementations. What they compute is told in `reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch  # noqa: TC002 - the examples need it

from bedstone.core.errors import InvalidConfigError, ShapeMismatchError
from bedstone.kernels.composed import ComposedOp, spec_of
from bedstone.kernels.gated import liger, reference
from bedstone.kernels.implementation import KernelImpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from bedstone.kernels.implementation import KernelSpec
    from bedstone.kernels.registry import Sample

Activation = Literal["silu", "gelu", "gelu_tanh"]
ACTIVATIONS = ("silu", "gelu", "gelu_tanh")


def glu(gate: torch.Tensor, up: torch.Tensor, activation: Activation = "silu") -> torch.Tensor:
    """Return `curve(gate) * up`: SwiGLU with `silu`, GeGLU with `gelu` (exact) or `gelu_tanh`.

    Args:
        gate: `[..., D]`, floating.
        up: Of the same shape and dtype.
        activation: The curve.

    Returns:
        `[..., D]`, of the same dtype. Differentiable in gate and up.

    Raises:
        ShapeMismatchError: The shapes differ.
        InvalidConfigError: There is no such curve.

    >>> glu(torch.tensor([0.0, 20.0]), torch.tensor([3.0, 3.0]))
    tensor([ 0., 60.])
    """
    if gate.shape != up.shape:
        raise ShapeMismatchError(expected=tuple(gate.shape), actual=tuple(up.shape), argument="up")
    if activation not in ACTIVATIONS:
        message = f"`activation` (={activation!r}) must be silu, gelu or gelu_tanh."
        raise InvalidConfigError(message, argument="activation", value=activation)
    return glu_op(gate, up, activation)


def _spec(gate: torch.Tensor, up: torch.Tensor, activation: str) -> KernelSpec:
    columns = gate.shape[-1] if gate.ndim else 1
    options = "" if activation == "silu" else activation
    return spec_of(gate, gate.numel() // max(columns, 1), 1, columns, options, (up,))


def _workspace(gate: torch.Tensor, up: torch.Tensor, activation: str) -> int:
    """The curve, which autograd keeps; of halves torch widens no whole tensor."""
    del up, activation
    return gate.nbytes


def _sample(activation: str) -> Sample:
    def make(spec: KernelSpec, normal: Callable[..., torch.Tensor]) -> tuple[Any, ...]:
        return normal(spec.inputs, spec.columns), normal(spec.inputs, spec.columns), activation

    return make


glu_op = ComposedOp(
    "glu",
    _spec,
    liger.IMPLEMENTATION,
    KernelImpl("reference", reference.glu, _workspace),
    differentiable=2,
    samples={activation: _sample(activation) for activation in ACTIVATIONS},
)
