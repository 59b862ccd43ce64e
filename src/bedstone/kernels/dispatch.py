"""Registered operations as `GpuDispatchable`: `dispatch` checks where the inputs are, the registry takes the implementation.

An operation here has no GPU and CPU code of its own. Both ways lead to the registry, which takes the best implementation for the device and can
say why (`kernels.explain`), so that an implementation from another package serves these classes too.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import torch

from bedstone.core.protocols import GpuDispatchable
from bedstone.kernels.cross_entropy import linear_cross_entropy
from bedstone.kernels.fourbit import linear_4bit
from bedstone.kernels.sdpa import attention

if TYPE_CHECKING:
    from collections.abc import Sequence

Input = TypeVar("Input")


class RegisteredOperation(GpuDispatchable[Input, torch.Tensor]):
    """A `GpuDispatchable` whose implementations are those of an operation in the registry.

    Derive from it, name the operation and write `run`.

    Attributes:
        op: The operation, as `kernels.explain` takes it.
    """

    op: ClassVar[str]

    @abstractmethod
    def run(self, input: Input) -> torch.Tensor:  # noqa: A002 - the protocol's name
        """Call the operation; its tensors lie on one device."""

    def dispatch_gpu(self, input: Input, device: torch.device) -> torch.Tensor:  # noqa: A002
        """Compute on an accelerator, in what the registry takes there."""
        del device
        return self.run(input)

    def dispatch_cpu(self, input: Input, device: torch.device) -> torch.Tensor:  # noqa: A002
        """Compute on the CPU, in what the registry takes there."""
        del device
        return self.run(input)


@dataclass(frozen=True)
class AttentionInput:
    """What `Attention` takes; shapes and options as of `kernels.attention`."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    mask: torch.Tensor | None = None
    causal: bool = False
    scale: float | None = None
    window: int = 0
    softcap: float = 0.0


class Attention(RegisteredOperation[AttentionInput]):
    """`kernels.attention`.

    >>> one = torch.ones(1, 1, 2, 4)
    >>> Attention().dispatch(AttentionInput(one, one, one, causal=True), "cpu").shape
    torch.Size([1, 1, 2, 4])
    """

    op = "attention"

    def run(self, input: AttentionInput) -> torch.Tensor:  # noqa: A002
        """Return what each query reads."""
        return attention(
            input.q,
            input.k,
            input.v,
            mask=input.mask,
            causal=input.causal,
            scale=input.scale,
            window=input.window,
            softcap=input.softcap,
        )


@dataclass(frozen=True)
class Nf4LinearInput:
    """What `Nf4Linear` takes.

    Attributes:
        x: `[..., K]`, floating.
        packed: Codes of the weight, as `quantize_4bit` returns them.
        absmax: Their scales; uint8 codes if they are quantized themselves.
        shape: `[N, K]`.
        block_size: Of the scales.
        nested_absmax: Scales of the scales, or None.
        offset: Of the scales, or None.
        bias: `[N]`, or None.
    """

    x: torch.Tensor
    packed: torch.Tensor
    absmax: torch.Tensor
    shape: Sequence[int]
    block_size: int = 64
    nested_absmax: torch.Tensor | None = None
    offset: torch.Tensor | None = None
    bias: torch.Tensor | None = None


class Nf4Linear(RegisteredOperation[Nf4LinearInput]):
    """`x W^T + bias` with a weight that stays packed as NF4.

    >>> from bedstone.kernels.fourbit import quantize_4bit
    >>> packed, absmax = quantize_4bit(torch.eye(2, 64), 64, "nf4")
    >>> Nf4Linear().dispatch(Nf4LinearInput(torch.eye(1, 64), packed, absmax, (2, 64)), "cpu").round(decimals=3)
    tensor([[1., 0.]])
    """

    op = "nf4_linear"

    def run(self, input: Nf4LinearInput) -> torch.Tensor:  # noqa: A002
        """Return the product."""
        weight = (input.packed, input.absmax, input.nested_absmax, input.offset, list(input.shape), input.block_size)
        return linear_4bit(input.x, *weight, "nf4", input.bias)


@dataclass(frozen=True)
class CrossEntropyInput:
    """What `LinearCrossEntropy` takes; shapes and options as of `kernels.linear_cross_entropy`."""

    hidden: torch.Tensor
    weight: torch.Tensor
    labels: torch.Tensor
    bias: torch.Tensor | None = None
    reduction: Literal["mean", "sum", "none"] = "mean"
    ignore_index: int = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float = 0.0
    token_weights: torch.Tensor | None = None


class LinearCrossEntropy(RegisteredOperation[CrossEntropyInput]):
    """`kernels.linear_cross_entropy`: the output head and its loss without all logits.

    >>> LinearCrossEntropy().dispatch(CrossEntropyInput(torch.eye(2), 100 * torch.eye(2), torch.arange(2)), "cpu")
    tensor(0.)
    """

    op = "linear_cross_entropy"

    def run(self, input: CrossEntropyInput) -> torch.Tensor:  # noqa: A002
        """Return the loss."""
        return linear_cross_entropy(
            input.hidden,
            input.weight,
            input.labels,
            input.bias,
            reduction=input.reduction,
            ignore_index=input.ignore_index,
            label_smoothing=input.label_smoothing,
            z_loss=input.z_loss,
            softcap=input.softcap,
            token_weights=input.token_weights,
        )
