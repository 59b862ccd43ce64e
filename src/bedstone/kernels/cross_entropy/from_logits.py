"""Cross-entropy of logits that exist: a few rows at a time, nothing kept but the logits. What it computes is told in `reference.py`.

`F.cross_entropy` keeps a matrix of the size of the logits, in float32 where the logits are widened before, and computes ignored rows. Here the
backward pass computes the parts again instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from bedstone.core.errors import DimensionMismatchError, ShapeMismatchError
from bedstone.kernels.cross_entropy import reference
from bedstone.kernels.cross_entropy.op import check_options, labels_of, options_of, weight_of_rows
from bedstone.kernels.implementation import KernelImpl, KernelSpec
from bedstone.kernels.library import Operation, define
from bedstone.kernels.registry import KernelOp

if TYPE_CHECKING:
    from collections.abc import Callable

    from bedstone.kernels.registry import Sample

_SMALL = 2**14  # what belongs to single rows


def chunked_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    reduction: Literal["mean", "sum", "none"] = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    token_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the cross-entropy of logits, a few rows at a time. Where the head's input is at hand, `linear_cross_entropy` needs less.

    Args:
        logits: `[M, V]`, floating.
        labels: int64 `[M]`, each from 0 to V - 1, or `ignore_index`.
        reduction: `mean` divides by the sum of the weights of the rows that are not ignored, without weights by their number; 0 rows give NaN,
            as in torch. `none` gives `[M]`, 0 for ignored rows.
        ignore_index: The label of rows that do not count; they are not computed.
        label_smoothing: From 0 to 1.
        z_loss: The weight of the squared log of the softmax's denominator, which keeps logits from drifting.
        softcap: Logits become `softcap * tanh(logits / softcap)`; 0 for none.
        token_weights: `[M]`, what each row's loss is multiplied by.

    Returns:
        float32, of float64 logits float64; a scalar or `[M]`. Differentiable once in `logits`.

    Raises:
        DimensionMismatchError: The logits are no matrix.
        ShapeMismatchError: The shapes do not fit.
        InvalidConfigError: An option is out of its range.

    >>> logits, labels = torch.randn(5, 100, requires_grad=True), torch.tensor([1, 2, -100, 4, 99])
    >>> torch.testing.assert_close(chunked_cross_entropy(logits, labels), torch.nn.functional.cross_entropy(logits, labels))
    """
    if logits.ndim != 2:  # noqa: PLR2004 - a matrix
        raise DimensionMismatchError(expected=2, actual=logits.ndim, argument="logits")
    for name, vector in (("labels", labels), ("token_weights", token_weights)):
        if vector is not None and tuple(vector.shape) != (len(logits),):
            raise ShapeMismatchError(expected=(len(logits),), actual=tuple(vector.shape), argument=name)
    check_options(reduction, label_smoothing, z_loss, softcap)
    options = (ignore_index, label_smoothing, z_loss, softcap)
    losses = _ChunkedCrossEntropy.apply(logits, labels, token_weights, options)
    if reduction == "none":
        return losses
    return losses.sum() / weight_of_rows(labels, ignore_index, token_weights) if reduction == "mean" else losses.sum()


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Losses of rows."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        labels: torch.Tensor,
        token_weights: torch.Tensor | None,
        options: tuple[int, float, float, float],
    ) -> torch.Tensor:
        ctx.options = options
        ctx.save_for_backward(logits, labels, token_weights)
        return chunked_cross_entropy_op(logits, labels, token_weights, *options, False)[0]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        logits, labels, token_weights = ctx.saved_tensors
        scale = grads[0] if token_weights is None else grads[0] * token_weights
        return chunked_cross_entropy_op(logits, labels, scale, *ctx.options, True)[1], None, None, None


def _fake(logits, labels, scale, ignore_index, smoothing, z_loss, softcap, gradient):  # noqa: ANN001, ANN202
    del scale, ignore_index, smoothing, z_loss, softcap
    losses = logits.new_empty(labels.shape, dtype=reference.wide(logits.dtype))
    return losses, logits.new_empty(logits.shape if gradient else 0)


def _workspace(logits, labels, scale, ignore_index, smoothing, z_loss, softcap, gradient):  # noqa: ANN001, ANN202
    del labels, scale, ignore_index, smoothing, z_loss
    wide, rows = reference.wide(logits.dtype), min(len(logits), reference.rows_at_a_time(logits.shape[1]))
    halves = logits.element_size() * (1 + (logits.dtype != wide and gradient))
    return rows * logits.shape[1] * (wide.itemsize * (1 + bool(softcap)) + halves) + 16 * len(logits) + _SMALL


def _spec(logits, labels, scale, ignore_index, smoothing, z_loss, softcap, gradient):  # noqa: ANN001, ANN202
    del labels, ignore_index, gradient
    asked = options_of(scale, smoothing, z_loss, softcap)
    return KernelSpec(
        logits.device.type, logits.dtype, len(logits), 1, logits.shape[1], logits.is_contiguous(), options=asked
    )


def _sample(*options: float, weights: bool = False) -> Sample:
    def make(spec: KernelSpec, normal: Callable[..., torch.Tensor]) -> tuple[Any, ...]:
        scale = torch.arange(1, spec.inputs + 1, device=spec.device) / max(spec.inputs, 1) if weights else None
        return (normal(spec.inputs, spec.columns), labels_of(spec, spec.columns), scale, -100, *options, True)

    return make


_implementations = KernelOp(
    "chunked_cross_entropy",
    _spec,
    KernelImpl("reference", reference.of_logits, _workspace),
    samples={"plain": _sample(0.0, 0.0, 0.0), "all": _sample(0.1, 0.01, 3.0, weights=True)},
)
chunked_cross_entropy_op = define(
    "chunked_cross_entropy(Tensor logits, Tensor labels, Tensor? scale, int ignore_index, float smoothing, float z_loss, "
    "float softcap, bool gradient) -> (Tensor, Tensor)",
    Operation(_implementations, _fake, _implementations.workspace),
)
