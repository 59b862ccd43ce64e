"""A model of plain linear layers made ternary, trained, packed, and back.

    to_bitlinear(model)        nn.Linear -> BitLinear, weights kept
    set_strength(model, 0.3)   how much of the rounding it feels, during a warm-up
    pack(model)                master weights -> trits of 2 bits
    unpack(model)              trits -> master weights, to train on

All of them change layers in place, after they have looked at every layer. A layer is converted by changing its class, as
torch's own parametrizations do: hooks, shared layers and references to it stay valid, and a lone layer converts too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from bedstone.core.errors import InvalidConfigError, UnsupportedError
from bedstone.quant.bitlinear import BitLinear, BitLinearConfig, master_of
from bedstone.quant.model import LayerPlan, PackedLayer, naming
from bedstone.quant.tensor import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class BitLinearReport:
    """What `to_bitlinear` did to a model.

    Attributes:
        config: How the new layers round.
        converted: Names of the layers that are a `BitLinear` now.
        skipped: Name and reason of each linear layer that is none.
    """

    config: BitLinearConfig
    converted: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{len(self.converted)} layers are ternary."]
        return "\n".join(lines + [f"{name} stays as it is: {reason}." for name, reason in self.skipped])


def to_bitlinear(
    model: nn.Module, config: BitLinearConfig | None = None, *, skip: Sequence[str] = ()
) -> BitLinearReport:
    """Make every `nn.Linear` of a model a `BitLinear`, in place; weights and biases keep their values.

    Convert first and make optimizer and adapters afterwards: a weight of another dtype than float32 becomes a new parameter, and
    the matrices of an adapter are linear layers too.

    Args:
        model: Any module, or a lone `nn.Linear`; may be on the meta device.
        config: How the layers round; `None` for BitNet b1.58.
        skip: The layers to leave as they are, named as for `quantize`. BitNet leaves the output head dense.

    Returns:
        What was converted and what was not. A weight that is shared with an embedding and a subclass of `nn.Linear` with a
        forward of its own are left as they are.

    Raises:
        UnknownNameError: A name in `skip` that no linear layer has.
        QuantizationError: A weight is not floating point or not finite; nothing was changed.

    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    >>> print(to_bitlinear(model, skip=["2"]))
    1 layers are ternary.
    2 stays as it is: skipped by name.
    >>> model[0]
    BitLinear(in_features=64, out_features=64, bias=True, master weight, ternary a tensor, int8 activations)
    """
    chosen = config or BitLinearConfig()
    plan = LayerPlan(model, skip, _unfit(model))
    for name, layer in plan.chosen.items():
        with naming(name):
            chosen.scheme.check(layer.weight.detach())
    masters: dict[int, nn.Parameter] = {}
    for layer in plan.chosen.values():
        weight = layer.weight
        layer.weight = masters.setdefault(id(weight), _master(weight))  # two layers that share one go on sharing it
        _convert(layer, chosen)
    return BitLinearReport(chosen, tuple(plan.chosen), tuple(plan.skipped))


def set_strength(model: nn.Module, strength: float) -> None:
    """Set how much of the rounding every `BitLinear` of a model feels.

    A dense model that is made ternary at once loses what it knew. With `min(1, step / warmup_steps)` it gets used to it.

    Args:
        model: A module that holds a `BitLinear`, or is one.
        strength: 0 for a plain linear layer, 1 for the ternary one, between them `w + strength * (q - w)` for weights and
            activations.

    Raises:
        InvalidConfigError: `strength` is not within 0 to 1, or the model has no `BitLinear`.

    >>> layer = BitLinear(64, 4)
    >>> set_strength(layer, 0.5)
    >>> layer.strength
    0.5
    """
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength <= 1:
        message = f"`strength` (={strength!r}) must be a number from 0 to 1."
        raise InvalidConfigError(message, argument="strength", value=strength)
    for layer in _bitlinear_layers(model).values():
        layer._strength = float(strength)  # noqa: SLF001 - this function is how users set it


def pack(model: nn.Module) -> list[PackedLayer]:
    """Pack the master weight of every `BitLinear` of a model, in place: 2 bits a weight, the same output.

    Activations go on being rounded, so the output is that of the training forward pass but for the order of float additions.
    The packed weight is frozen; adapters train on it. Afterwards, make the optimizer anew.

    Args:
        model: A module that holds a `BitLinear`, or is one. Layers that are packed already stay as they are.

    Returns:
        The layers that were packed.

    Raises:
        InvalidConfigError: The model has no `BitLinear`.
        NonFiniteWeightError: A weight is NaN or infinite; nothing was changed.
        UnsupportedError: A layer is still in its warm-up, so that its packed output would be another; nothing was changed.

    >>> layer = BitLinear(128, 64, bias=False)
    >>> x = torch.randn(3, 128)
    >>> before = layer(x)
    >>> [packed] = pack(layer)
    >>> from bedstone.kernels import policy
    >>> with policy("exact"):
    ...     packed.dense_bytes, packed.packed_bytes, torch.allclose(layer(x), before, atol=1e-5)
    (32768, 2052, True)
    """
    masters = {name: layer for name, layer in _bitlinear_layers(model).items() if layer.is_master}
    for name, layer in masters.items():
        if layer.strength != 1:
            message = (
                f"{name} is at strength {layer.strength:g} of its warm-up; packed it would compute something else."
            )
            raise UnsupportedError(message, feature="packing during a warm-up", remedy="Call set_strength(model, 1).")
        with naming(name):
            layer.config.scheme.check(layer.weight.detach())
    packed: dict[int, nn.Parameter] = {}
    report: list[PackedLayer] = []
    for name, layer in masters.items():
        dense, scheme = layer.weight, layer.config.scheme
        if id(dense) not in packed:
            made = scheme.quantize(dense)
            packed[id(dense)] = nn.Parameter(made, requires_grad=False)
            report.append(PackedLayer(name, tuple(dense.shape), dense.nbytes, made.packed_bytes))
        layer.weight = packed[id(dense)]
    return report


def unpack(model: nn.Module) -> list[str]:
    """Give every packed `BitLinear` of a model a master weight that rounds to its trits and scale, in place.

    Not the master weight that was packed, which is gone: the nearest there is. Trits are equal, scales and outputs up to float
    rounding.

    Args:
        model: A module that holds a `BitLinear`, or is one.

    Returns:
        The names of the layers that were unpacked.

    Raises:
        InvalidConfigError: The model has no `BitLinear`.
        QuantizationError: A weight was packed with scales elsewhere than its layer has them; nothing was changed.

    >>> layer = BitLinear(64, 4)
    >>> _ = pack(layer)
    >>> unpack(layer), layer.is_master, layer.weight.requires_grad
    (['weight'], True, True)
    """
    layers = _bitlinear_layers(model)
    dense: dict[int, nn.Parameter] = {}
    packed = {name: layer.weight for name, layer in layers.items() if isinstance(layer.weight, QuantizedTensor)}
    for name, weight in packed.items():
        if id(weight) not in dense:
            master = master_of(weight, layers[name].config.scheme, name)
            dense[id(weight)] = nn.Parameter(master)
    for name, weight in packed.items():
        layers[name].weight = dense[id(weight)]
        layers[name].is_master = True
    return list(packed)


def _bitlinear_layers(model: nn.Module) -> dict[str, BitLinear]:
    layers = {name or "weight": layer for name, layer in model.named_modules() if isinstance(layer, BitLinear)}
    if not layers:
        message = f"The model (a {type(model).__name__}) has no BitLinear."
        raise InvalidConfigError(message, argument="model", value=model, remedy="Convert it with to_bitlinear.")
    return layers


def _unfit(model: nn.Module) -> dict[str, str]:
    """Linear layers that changing the class would not make ternary, with the reason."""
    reasons: dict[str, str] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, BitLinear):
            reasons[name or "weight"] = "it is a BitLinear already"
        elif isinstance(layer, nn.Linear) and type(layer) is not nn.Linear:
            reasons[name or "weight"] = f"it is a {type(layer).__name__}, which computes in its own way"
        elif "forward" in layer.__dict__:
            reasons[name or "weight"] = "its forward was replaced by another library"
    return reasons


def _master(weight: torch.Tensor) -> nn.Parameter:
    """The parameter itself where it is float32, so that who holds it still holds the right one."""
    if isinstance(weight, nn.Parameter) and weight.dtype is torch.float32:
        return weight
    return nn.Parameter(weight.detach().float(), requires_grad=weight.requires_grad)


def _convert(layer: nn.Linear, config: BitLinearConfig) -> None:
    layer.__class__ = BitLinear
    assert isinstance(layer, BitLinear)
    layer._start(config)  # noqa: SLF001 - what __init__ would do
