"""`BitLinear`: a linear layer that learns to be ternary.

    x ── RMSNorm? ── round to int8 a token ──┐
                                             ├── x_q @ w_q.T + bias
    w (float32, the master weight) ── trits ─┘

It is an `nn.Linear`: the same parameters, state dict and place in a model. Its `weight` is in one of two states.

    master      a float32 parameter that an optimizer moves; the forward pass sees it as trits times a scale, and the gradient
                goes straight through to it, so that many small steps add up until a trit flips
    final       what `pack` left, a ternary `QuantizedTensor` of about 2 bits a weight; used as it is

A weight that was packed once stays final, also when it is made dense again (`quant.dequantize`): trits that were rounded a second
time would get another scale, mean |t * s| = s * (share of the trits that are not 0). `unpack` knows that and gives a master
weight that rounds to the same trits and scale.

Whole models are converted and packed by the functions of `bitlinear_model.py`.

References:
    Wang et al.: BitNet: Scaling 1-bit transformers for large language models, 2023, https://arxiv.org/abs/2310.11453.
    Ma et al.: The Era of 1-bit LLMs, 2024, https://arxiv.org/abs/2402.17764.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from bedstone.core.errors import Problem
from bedstone.core.protocols import ValidatableConfig
from bedstone.quant.errors import QuantizationError
from bedstone.quant.fake_quant import absmean, fake_quant_activation, fake_quant_ternary
from bedstone.quant.granularity import as_matrix, columns_in_block
from bedstone.quant.tensor import QuantizedTensor
from bedstone.quant.ternary import Ternary

if TYPE_CHECKING:
    from collections.abc import Iterator

_FEWEST_BITS, _MOST_BITS = 2, 8


@dataclass(frozen=True)
class BitLinearConfig(ValidatableConfig):
    """How a `BitLinear` rounds.

    Args:
        scheme: Which weights share a scale; `Ternary()` is BitNet b1.58.
        activation_bits: Of the codes of the activations, 2 to 8, one scale a token; `None` leaves them as they are.
        norm: Put an RMSNorm with a weight of its own in front, as BitNet does.
        norm_eps: What the norm adds to the mean square, above 0.

    Raises:
        InvalidConfigError: An option is not allowed.

    >>> BitLinearConfig(activation_bits=16)
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: BitLinearConfig has a problem:
      `activation_bits` (=16) must be a whole number from 2 to 8, or None.
    """

    scheme: Ternary = field(default_factory=Ternary)
    activation_bits: int | None = 8
    norm: bool = False
    norm_eps: float = 1e-6

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the options."""
        if not isinstance(self.scheme, Ternary):
            yield Problem("scheme", f"(={self.scheme!r}) must be a Ternary scheme.", self.scheme)
        bits = self.activation_bits
        if bits is not None and (type(bits) is not int or not _FEWEST_BITS <= bits <= _MOST_BITS):
            yield Problem("activation_bits", f"(={bits!r}) must be a whole number from 2 to 8, or None.", bits)
        if not isinstance(self.norm, bool):
            yield Problem("norm", f"(={self.norm!r}) must be True or False.", self.norm)
        eps = self.norm_eps
        if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 < eps < float("inf"):
            yield Problem("norm_eps", f"(={eps!r}) must be a finite number above 0.", eps)


class BitLinear(nn.Linear):
    """A linear layer that multiplies int8 activations with ternary weights, trained through a float32 master weight.

    Args:
        in_features: K.
        out_features: N.
        bias: Whether it adds a bias, which stays dense.
        device: As for `nn.Linear`.
        dtype: As for `nn.Linear`.
        config: How it rounds; `None` for BitNet b1.58.

    Attributes:
        config: How it rounds.
        is_master: Whether `weight` is a master weight, which the forward pass rounds; False once it was packed.
        rms_norm: The norm in front, or None; called as in transformers' BitNet layers, so that state dicts fit both ways.

    >>> _ = torch.manual_seed(0)
    >>> layer = BitLinear(64, 4, bias=False)
    >>> layer(torch.ones(1, 64)).sum().backward()  # the gradient of a plain linear layer with rounded operands
    >>> layer.weight.grad.unique()
    tensor([1.])
    >>> len(layer.rounded_weight().unique())
    3
    """

    config: BitLinearConfig
    is_master: bool
    rms_norm: nn.RMSNorm | None
    _strength: float

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        config: BitLinearConfig | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self._start(config or BitLinearConfig())

    @property
    def strength(self) -> float:
        """How much of the rounding the forward pass sees, 0 to 1; `set_strength` sets it."""
        return self._strength

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """Return the product of rounded activations and rounded weight.

        Args:
            input: `[..., K]`, any floating dtype.

        Returns:
            `[..., N]` in the dtype of `input`, or in autocast's where that is on.
        """
        x = self.rounded_input(input)
        weight = self.rounded_weight()
        if not isinstance(weight, QuantizedTensor):  # a packed weight multiplies any dtype
            weight = weight.to(x.dtype)
        return functional.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))

    def rounded_input(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activations that are multiplied: normed if the layer has a norm, and rounded.

        Args:
            x: `[..., K]`.
        """
        if self.rms_norm is not None:
            weight = self.rms_norm.weight.to(x.dtype)
            x = functional.rms_norm(x, self.rms_norm.normalized_shape, weight, self.rms_norm.eps)
        bits = self.config.activation_bits
        return x if bits is None else fake_quant_activation(x, bits, self._strength)

    def rounded_weight(self) -> torch.Tensor:
        """Return the weight that is multiplied, `[N, K]`: a master weight rounded, a final one as it is."""
        return fake_quant_ternary(self.weight, self.config.scheme, self._strength) if self.is_master else self.weight

    def extra_repr(self) -> str:
        """Return what `print` shows of the layer."""
        bits = self.config.activation_bits
        inputs = "activations as they are" if bits is None else f"int{bits} activations"
        strength = f", strength {self._strength:g}" if self._strength != 1 else ""
        kind = "master" if self.is_master else "final"
        return f"{super().extra_repr()}, {kind} weight, ternary a {self.config.scheme.granularity}, {inputs}{strength}"

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "weight" and isinstance(value, QuantizedTensor):
            self.is_master = False

    def _start(self, config: BitLinearConfig) -> None:
        """Take the attributes that `nn.Linear` has not."""
        self.config, self.is_master, self._strength = config, True, 1.0
        place = {"device": self.weight.device, "dtype": self.weight.dtype}
        self.rms_norm = nn.RMSNorm(self.in_features, config.norm_eps, **place) if config.norm else None

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride] - torch calls it by position
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        """Read a packed weight into a master one, so that the layer computes the same.

        Dense into master and packed into packed are exact, dense into packed packs: that is what torch and the packed
        weight do by themselves.
        """
        incoming = state_dict.get(f"{prefix}weight")
        if isinstance(incoming, QuantizedTensor) and self.is_master:
            if local_metadata.get("assign_to_params_buffers"):
                self.weight.requires_grad_(False)  # torch gives the new parameter what the old one has
            else:
                state_dict[f"{prefix}weight"] = master_of(incoming, self.config.scheme, f"{prefix}weight")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def master_of(packed: QuantizedTensor, scheme: Ternary, name: str = "weight") -> torch.Tensor:
    """Return a dense float32 weight that `scheme` rounds to the trits and scale of a packed one.

    Dense trits t * s have mean magnitude s * p, where p is the share that is not 0; stretched by 1 / p they have s.

    Args:
        packed: A ternary weight; of any other scheme it is only unpacked.
        scheme: With which the master weight will be rounded.
        name: For the message.

    Raises:
        QuantizationError: The packed weight has its scales elsewhere.

    >>> from bedstone.quant import Ternary
    >>> packed = Ternary().quantize(torch.tensor([[0.9, -1.1, 0.1, 0.0]]))
    >>> master_of(packed, Ternary())
    tensor([[ 1.0500, -1.0500,  0.0000,  0.0000]])
    """
    dense = packed.dequantize(torch.float32)
    if not isinstance(packed.scheme, Ternary) or not dense.numel():
        return dense
    if _shared_by(packed.scheme) != _shared_by(scheme):
        raise QuantizationError(
            f"{name} is packed by {packed.scheme}, but its layer rounds by {scheme}, which would give other trits.",
            scheme=scheme.name,
            remedy="Make the layer with the scheme of the weight.",
            name=name,
        )
    matrix, scale = as_matrix(dense), packed.parts["scale"]
    mean = absmean(matrix, scheme)
    stretch = torch.where(mean > 0, scale / mean, 1.0)
    columns = torch.arange(matrix.shape[1], device=dense.device)
    block = columns_in_block(dense.shape, scheme.granularity, scheme.block_size)
    return (matrix * stretch[:, columns // block]).view(dense.shape)


def _shared_by(scheme: Ternary) -> tuple[str, int]:
    """What decides about the scales; the block size only where there are blocks."""
    return scheme.granularity, scheme.block_size if scheme.granularity == "block" else 0
