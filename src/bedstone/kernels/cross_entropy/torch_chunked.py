"""torch's own loss in parts, `F.linear_cross_entropy` with options: the least memory, in smaller parts than ours.

It has no label smoothing, z-loss, soft cap or token weights. Asked for the first, for labels that are not int64, or while `torch.jit` traces,
it computes all logits with a warning; asked without options, without one. Neither happens here: what it cannot take in parts is refused.
Losses of rows are asked of it, so its backward pass computes the logits again.

On a CPU it takes much longer than plain torch in parts of `reference.LOGITS_BYTES`, so it is for CUDA, where it is unverified.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from bedstone.core.errors import UnsupportedError
from bedstone.kernels.implementation import KernelImpl, KernelSpec


def losses_and_gradients(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    token_weights: torch.Tensor | None,
    ignore_index: int,
    smoothing: float,
    z_loss: float,
    softcap: float,
    of_hidden: bool,
    of_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the loss of each row, and the gradients of their sum: of `hidden`, `weight` and `bias`, empty where not asked for."""
    del token_weights, smoothing, z_loss, softcap  # refused
    if labels.dtype is not torch.int64 or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage] - it is documented
        message = f"torch would compute all logits at once for {labels.dtype} labels, or while torch.jit traces."
        raise UnsupportedError(
            message, feature="linear_cross_entropy", remedy="Give int64 labels, and use torch.compile."
        )
    rows = (labels != ignore_index).nonzero().squeeze(1)  # torch would compute the others too
    some = hidden.index_select(0, rows).detach().requires_grad_(of_hidden)
    head = weight.detach().requires_grad_(of_weight)
    offset = None if bias is None else bias.detach().requires_grad_(of_weight)
    with torch.enable_grad():
        found = F.linear_cross_entropy(
            some,
            head,
            labels.index_select(0, rows),
            linear_bias=offset,
            reduction="none",
            options=torch.nn.LinearCrossEntropyOptions(),
        )
    inputs = {"hidden": some, "weight": head} | ({} if offset is None else {"bias": offset})
    asked = {name: each for name, each in inputs.items() if each.requires_grad}
    gradients = torch.autograd.grad(found.sum(), list(asked.values())) if asked else ()
    by_name = dict(zip(asked, gradients, strict=True))
    losses = hidden.new_zeros(len(labels), dtype=torch.promote_types(hidden.dtype, torch.float32))
    losses[rows] = found.detach().to(losses.dtype)
    of_rows = by_name.get("hidden")
    grad_hidden = hidden.new_empty(0) if of_rows is None else torch.zeros_like(hidden).index_copy_(0, rows, of_rows)
    return losses, grad_hidden, by_name.get("weight", weight.new_empty(0)), by_name.get("bias", weight.new_empty(0))


def _unfit(spec: KernelSpec) -> str:
    if spec.options:
        return f"torch has no {' and no '.join(spec.options.split())} in parts: it would compute all logits"
    return "" if spec.inputs else "it takes a row at least"


def _workspace(hidden: torch.Tensor, weight: torch.Tensor, *rest: object) -> int:
    """Some parts of logits, each of the size of `hidden` up to a power of two; gradients before they are scaled, wide ones of halves too."""
    del rest
    parts = 4 * 4 * max(hidden.numel(), 4 * len(weight))
    return parts + 4 * max(hidden.element_size(), 4) * (weight.numel() + hidden.numel()) + 2**16


IMPLEMENTATION = KernelImpl(
    "torch_chunked",
    losses_and_gradients,
    _workspace,
    _unfit,
    devices=("cuda",),
    only="on a CPU it takes longer than plain torch in larger parts",
)
