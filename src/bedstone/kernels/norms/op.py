"""The norms as people call them, their checks and their implementations. What they compute is told in `reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch  # noqa: TC002 - the examples need it

from bedstone.core.errors import InvalidConfigError, ShapeMismatchError
from bedstone.kernels.composed import ComposedOp, spec_of
from bedstone.kernels.implementation import KernelImpl
from bedstone.kernels.norms import liger, reference
from bedstone.kernels.triton.lazy import in_triton

if TYPE_CHECKING:
    from collections.abc import Callable

    from bedstone.kernels.implementation import KernelSpec
    from bedstone.kernels.registry import Sample

Rounding = Literal["llama", "gemma"]
_RMS_OPTIONS = {
    (False, False): "",
    (True, False): "gemma",
    (False, True): "offset",
    (True, True): "gemma offset",
}
ROUNDINGS = ("llama", "gemma")
_SMALL = 2**12  # what belongs to no row


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6, *, offset: float = 0.0, rounding: Rounding = "llama"
) -> torch.Tensor:
    """Return `x / sqrt(mean(x^2) + eps) * (offset + weight)`, the mean over the last dimension, in float32 or wider.

    Args:
        x: `[..., D]`, floating.
        weight: `[D]`.
        eps: Is added to the mean.
        offset: Is added to the weight; 1 in Gemma, whose weights are kept as their distance from 1.
        rounding: Where halves are rounded: `llama` before the product with the weight and after it, `gemma` at the end only. The same in float32.

    Returns:
        `[..., D]`, of the dtype of x; with `llama` of what the product of both dtypes is. Differentiable in x and weight.

    Raises:
        ShapeMismatchError: The last dimension of x is not that of the weight.
        InvalidConfigError: `rounding` is neither.

    >>> rms_norm(torch.tensor([[3.0, 4.0]]), torch.ones(2), 0.0) * 12.5**0.5
    tensor([[3., 4.]])
    """
    _check_norm(x, weight, None)
    if rounding not in ROUNDINGS:
        message = f"`rounding` (={rounding!r}) must be llama or gemma."
        raise InvalidConfigError(message, argument="rounding", value=rounding)
    return rms_norm_op(x, weight, eps, offset, rounding)


def layer_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, eps: float = 1e-5
) -> torch.Tensor:
    """Return `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, over the last dimension, in float32 or wider.

    Args:
        x: `[..., D]`, floating.
        weight: `[D]`, of the dtype of x.
        bias: `[D]`, or None.
        eps: Is added to the variance.

    Returns:
        `[..., D]`, of the dtype of x. Differentiable in x, weight and bias.

    Raises:
        ShapeMismatchError: The last dimension of x is not that of weight and bias.

    >>> layer_norm(torch.tensor([[1.0, 3.0]]), torch.ones(2), eps=0.0)
    tensor([[-1.,  1.]])
    """
    _check_norm(x, weight, bias)
    return layer_norm_op(x, weight, bias, eps)


def _check_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    last = tuple(x.shape[-1:])
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and (tuple(vector.shape) != last or not last):
            raise ShapeMismatchError(expected=last, actual=tuple(vector.shape), argument=name)


def _rms_spec(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, rounding: str) -> KernelSpec:
    del eps
    columns = weight.shape[0]
    options = _RMS_OPTIONS[rounding == "gemma", offset != 0]
    return spec_of(x, x.numel() // max(columns, 1), 1, columns, options, (weight,))


def _layer_spec(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> KernelSpec:
    del eps
    columns = weight.shape[0]
    options = "no-bias" if bias is None else ""
    return spec_of(x, x.numel() // max(columns, 1), 1, columns, options, (weight, bias))


def _workspace(x: torch.Tensor, weight: torch.Tensor, *options: Any) -> int:
    """Widened x, its square, and what autograd keeps of both."""
    del options
    return 4 * max(x.element_size(), 4) * (x.numel() + weight.numel()) + _SMALL


def _triton_workspace(x: torch.Tensor, weight: torch.Tensor, *options: Any) -> int:
    """A contiguous x, sizes of rows, and the parts of the weight's gradient."""
    del options
    rows = x.numel() // max(len(weight), 1)
    return x.nbytes + 4 * rows + 4 * min(rows, 256) * len(weight) + _SMALL


def _rms_sample(offset: float, rounding: str) -> Sample:
    def make(spec: KernelSpec, normal: Callable[..., torch.Tensor]) -> tuple[Any, ...]:
        return normal(spec.inputs, spec.columns), normal(spec.columns), 1e-6, offset, rounding

    return make


def _layer_sample(*, with_bias: bool) -> Sample:
    def make(spec: KernelSpec, normal: Callable[..., torch.Tensor]) -> tuple[Any, ...]:
        x, weight, bias = normal(spec.inputs, spec.columns), normal(spec.columns), normal(spec.columns)
        return x, weight, bias if with_bias else None, 1e-5

    return make


rms_norm_op = ComposedOp(
    "rms_norm",
    _rms_spec,
    liger.RMS_NORM,
    in_triton("bedstone.kernels.norms.triton_rms_norm", "rms_norm", _triton_workspace, unfit=liger.too_wide),
    KernelImpl("reference", reference.rms_norm, _workspace),
    differentiable=2,
    samples={"llama": _rms_sample(0.0, "llama"), "gemma": _rms_sample(1.0, "gemma")},
)
layer_norm_op = ComposedOp(
    "layer_norm",
    _layer_spec,
    liger.LAYER_NORM,
    KernelImpl("reference", reference.layer_norm, _workspace),
    differentiable=3,
    samples={"plain": _layer_sample(with_bias=True), "no bias": _layer_sample(with_bias=False)},
)
