"""The operation: schema, fake, workspace, derivative. What it computes is told in `reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from bedstone.core.errors import InvalidConfigError, ShapeMismatchError
from bedstone.kernels.cross_entropy import liger, reference, torch_chunked
from bedstone.kernels.implementation import KernelImpl, KernelSpec
from bedstone.kernels.library import Operation, define
from bedstone.kernels.registry import KernelOp
from bedstone.kernels.triton.lazy import in_triton

if TYPE_CHECKING:
    from collections.abc import Callable

    from bedstone.kernels.registry import Sample

_SMALL = 2**14  # what belongs to single rows


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    reduction: Literal["mean", "sum", "none"] = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    token_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the cross-entropy of `hidden @ weight.T + bias` without ever holding all logits.

    Args:
        hidden: `[M, D]`, floating.
        weight: `[V, D]`, of the same dtype.
        labels: int64 `[M]`, each from 0 to V - 1, or `ignore_index`.
        bias: `[V]`, or None.
        reduction: `mean` divides by the sum of the weights of the rows that are not ignored, without weights by their number; 0 rows give NaN,
            as in torch. `none` gives `[M]`, 0 for ignored rows.
        ignore_index: The label of rows that do not count; they are not computed.
        label_smoothing: From 0 to 1.
        z_loss: The weight of the squared log of the softmax's denominator, which keeps logits from drifting.
        softcap: Logits become `softcap * tanh(logits / softcap)`; 0 for none.
        token_weights: `[M]`, what each row's loss is multiplied by.

    Returns:
        float32, of float64 inputs float64; a scalar or `[M]`. Differentiable once in `hidden`, `weight` and `bias`.

    Raises:
        ShapeMismatchError: The shapes do not fit.
        InvalidConfigError: An option is out of its range.

    >>> hidden = torch.randn(5, 8, requires_grad=True)
    >>> weight, labels = torch.randn(100, 8), torch.tensor([1, 2, -100, 4, 99])
    >>> ours = linear_cross_entropy(hidden, weight, labels)
    >>> torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(hidden @ weight.T, labels))
    """
    _check(hidden, weight, labels, bias, token_weights)
    check_options(reduction, label_smoothing, z_loss, softcap)
    options = (ignore_index, label_smoothing, z_loss, softcap)
    losses = _LinearCrossEntropy.apply(hidden, weight, bias, labels, token_weights, options, reduction == "none")
    return losses / weight_of_rows(labels, ignore_index, token_weights) if reduction == "mean" else losses


def weight_of_rows(labels: torch.Tensor, ignore_index: int, token_weights: torch.Tensor | None) -> torch.Tensor:
    """Return what a sum of losses is divided by: how many rows are not ignored, or the sum of their weights."""
    kept = labels != ignore_index
    return kept.sum() if token_weights is None else (token_weights * kept).sum()


class _LinearCrossEntropy(torch.autograd.Function):
    """Losses of rows, or their sum; the gradients are those of the sum, computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        token_weights: torch.Tensor | None,
        options: tuple[int, float, float, float],
        by_row: bool,
    ) -> torch.Tensor:
        of_hidden, of_weight, of_bias, *_ = ctx.needs_input_grad
        ctx.by_row, ctx.options = by_row, options
        ctx.again = by_row and (of_weight or of_bias)  # the weights of the rows are known only in the backward pass
        arguments = (hidden, weight, bias, labels, token_weights) if ctx.again else ()
        whole = (of_weight or of_bias) and not by_row
        losses, *gradients = linear_cross_entropy_op(
            hidden, weight, bias, labels, token_weights, *options, of_hidden, whole
        )
        ctx.save_for_backward(*gradients, *arguments)
        return losses if by_row else losses.sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        (grad,) = grads
        grad_hidden, grad_weight, grad_bias, *arguments = ctx.saved_tensors
        of_hidden, of_weight, of_bias, *_ = ctx.needs_input_grad
        if ctx.again:
            hidden, weight, bias, labels, token_weights = arguments
            scale = grad if token_weights is None else grad * token_weights
            found = linear_cross_entropy_op(hidden, weight, bias, labels, scale, *ctx.options, False, True)
            grad_weight, grad_bias = found[2:]
        else:
            grad_weight, grad_bias = (grad_weight * grad, grad_bias * grad) if of_weight or of_bias else (None, None)
        upstream = grad.to(grad_hidden.dtype)
        hidden_part = grad_hidden * (upstream.unsqueeze(1) if ctx.by_row else upstream) if of_hidden else None
        return (
            hidden_part,
            grad_weight if of_weight else None,
            grad_bias if of_bias else None,
            *[None] * 4,
        )


def _check(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    bias: torch.Tensor | None,
    token_weights: torch.Tensor | None,
) -> None:
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:  # noqa: PLR2004 - matrices
        expected = (*hidden.shape[:1], *weight.shape[1:])
        raise ShapeMismatchError(expected=expected, actual=tuple(hidden.shape), argument="hidden")
    for name, vector, length in (
        ("labels", labels, len(hidden)),
        ("bias", bias, len(weight)),
        ("token_weights", token_weights, len(hidden)),
    ):
        if vector is not None and tuple(vector.shape) != (length,):
            raise ShapeMismatchError(expected=(length,), actual=tuple(vector.shape), argument=name)


def check_options(reduction: str, label_smoothing: float, z_loss: float, softcap: float) -> None:
    """Refuse options out of their range.

    Raises:
        InvalidConfigError: One is.
    """
    if reduction not in ("mean", "sum", "none"):
        message = f"`reduction` (={reduction!r}) must be mean, sum or none."
        raise InvalidConfigError(message, argument="reduction", value=reduction)
    if not 0 <= label_smoothing <= 1:
        message = f"`label_smoothing` (={label_smoothing}) must be from 0 to 1."
        raise InvalidConfigError(message, argument="label_smoothing", value=label_smoothing)
    for name, value in (("z_loss", z_loss), ("softcap", softcap)):
        if not 0 <= value < float("inf"):
            message = f"`{name}` (={value}) must be 0 or more."
            raise InvalidConfigError(message, argument=name, value=value)


def _fake(hidden, weight, bias, labels, token_weights, ignore_index, smoothing, z_loss, softcap, of_hidden, of_weight):  # noqa: ANN001, ANN202
    del token_weights, ignore_index, smoothing, z_loss, softcap
    return (
        hidden.new_empty(labels.shape, dtype=reference.wide(hidden.dtype)),
        torch.empty_like(hidden) if of_hidden else hidden.new_empty(0),
        torch.empty_like(weight) if of_weight else weight.new_empty(0),
        weight.new_empty(weight.shape[0] if of_weight and bias is not None else 0),
    )


def _workspace(hidden, weight, bias, labels, *options):  # noqa: ANN001, ANN002, ANN202
    del bias, labels
    *_, softcap, _of_hidden, of_weight = options
    wide, rows, vocabulary = reference.wide(hidden.dtype), reference.rows_at_a_time(len(weight)), len(weight)
    rows = min(len(hidden), rows)
    copies = 1 + bool(softcap) + (hidden.dtype != wide) + (weight.dtype != wide)
    widened = wide.itemsize * weight.numel() * (1 + (weight.dtype != wide)) if of_weight else 0
    parts = wide.itemsize * rows * (vocabulary * copies + hidden.shape[1] * 3)
    return parts + widened + 16 * len(hidden) + _SMALL


def options_of(token_weights: torch.Tensor | None, smoothing: float, z_loss: float, softcap: float) -> str:
    """Return what is asked besides the plain loss, in words of a specification."""
    asked = {
        "smoothing": bool(smoothing),
        "softcap": bool(softcap),
        "weights": token_weights is not None,
        "z-loss": bool(z_loss),
    }
    return " ".join(name for name, yes in asked.items() if yes)


def _spec(hidden, weight, bias, labels, token_weights, ignore_index, smoothing, z_loss, softcap, *rest):  # noqa: ANN001, ANN002, ANN202
    del bias, labels, ignore_index, rest
    asked = options_of(token_weights, smoothing, z_loss, softcap)
    return KernelSpec(hidden.device.type, hidden.dtype, len(hidden), *weight.shape, options=asked)


def labels_of(spec: KernelSpec, vocabulary: int) -> torch.Tensor:
    """Return labels that are the same in every run, each fourth of them ignored."""
    labels = (torch.arange(spec.inputs, device=spec.device) * 7919) % max(vocabulary, 1)
    labels[3::4] = -100
    return labels


def _sample(*options: float, weights: bool = False) -> Sample:
    def make(spec: KernelSpec, normal: Callable[..., torch.Tensor]) -> tuple[Any, ...]:
        hidden, weight = normal(spec.inputs, spec.columns), normal(spec.rows, spec.columns)
        weight *= max(spec.columns, 1) ** -0.5  # logits of the size of 1, as a head makes them
        labels, bias = labels_of(spec, spec.rows), normal(spec.rows) if weights else None
        scale = torch.arange(1, spec.inputs + 1, device=spec.device) / max(spec.inputs, 1) if weights else None
        return (hidden, weight, bias, labels, scale, -100, *options, True, True)

    return make


_implementations = KernelOp(
    "linear_cross_entropy",
    _spec,
    liger.LINEAR_CROSS_ENTROPY,
    torch_chunked.IMPLEMENTATION,
    in_triton("bedstone.kernels.cross_entropy.triton_cross_entropy", "losses_and_gradients", _workspace),
    KernelImpl("reference", reference.losses_and_gradients, _workspace),
    samples={"plain": _sample(0.0, 0.0, 0.0), "all": _sample(0.1, 0.01, 3.0, weights=True)},
)
linear_cross_entropy_op = define(
    "linear_cross_entropy(Tensor hidden, Tensor weight, Tensor? bias, Tensor labels, Tensor? token_weights, int ignore_index, "
    "float smoothing, float z_loss, float softcap, bool of_hidden, bool of_weight) -> (Tensor, Tensor, Tensor, Tensor)",
    Operation(_implementations, _fake, _implementations.workspace),
)
