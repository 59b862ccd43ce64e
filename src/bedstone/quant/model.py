"""A whole model packed in place: every `nn.Linear` keeps its class, its weight becomes a `QuantizedTensor`.

What is left dense is said, with the reason: layers that were asked to be skipped, weights that are shared with an embedding
(which must stay readable by row), weights that are packed already, adapters. All weights are looked at before the first one is replaced,
so a model that cannot be packed is left as it was.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import torch
from torch import nn

from bedstone.core.errors import CoreError, InvalidConfigError, UnknownNameError
from bedstone.core.events import Progress, emit
from bedstone.quant.scheme import Scheme, get_scheme, largest_magnitude
from bedstone.quant.tensor import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

_HUGE = 1e28  # the mean of a few billion such weights may leave float32


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """One weight that was packed.

    Attributes:
        name: Of the layer in the model.
        shape: Of the weight.
        dense_bytes: Before.
        packed_bytes: After, scales included.
        error: Relative error of the weight, `|q - w| / |w|` in the Frobenius norm; `None` when it was not measured.
    """

    name: str
    shape: tuple[int, ...]
    dense_bytes: int
    packed_bytes: int
    error: float | None = None


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """What `quantize` did to a model.

    Attributes:
        scheme: The scheme of every packed weight.
        packed: The layers that were packed.
        skipped: Name and reason of each linear layer that was not.
    """

    scheme: Scheme
    packed: tuple[PackedLayer, ...]
    skipped: tuple[tuple[str, str], ...]

    @property
    def dense_bytes(self) -> int:
        """Bytes of the packed weights before."""
        return sum(layer.dense_bytes for layer in self.packed)

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed weights now, scales included."""
        return sum(layer.packed_bytes for layer in self.packed)

    def __str__(self) -> str:
        lines = [
            f"{self.scheme.name}: {len(self.packed)} layers packed, {self.dense_bytes:,} bytes became {self.packed_bytes:,}."
        ]
        lines += [f"{name} stays dense: {reason}." for name, reason in self.skipped]
        return "\n".join(lines)


@overload
def quantize(target: torch.Tensor, scheme: str | Scheme = ...) -> QuantizedTensor: ...
@overload
def quantize(
    target: nn.Module, scheme: str | Scheme = ..., *, skip: Sequence[str] = ..., measure: bool = ...
) -> QuantizationReport: ...
def quantize(
    target: torch.Tensor | nn.Module,
    scheme: str | Scheme = "nf4",
    *,
    skip: Sequence[str] = (),
    measure: bool = False,
) -> QuantizedTensor | QuantizationReport:
    """Pack a weight, or in place the weights of every `nn.Linear` of a model.

    Args:
        target: A floating-point tensor of at least one dimension, or a module.
        scheme: A scheme or its name: `nf4`, `fp4`, `int8`, `fp8`, `ternary`, or a plug-in's.
        skip: Of a model, the layers to leave dense: a whole name (`model.layers.0.mlp.up_proj`), its last parts (`lm_head`), or
            a part in front of others (`model.layers.0`).
        measure: Of a model, measure the error of each weight, which unpacks it once.

    Returns:
        The packed weight; of a model, what was packed and what was not.

    Raises:
        QuantizationError: A weight that the scheme cannot hold, named; nothing was changed.
        UnknownNameError: The scheme, or a name in `skip` that no linear layer has.
        InvalidConfigError: `target` is neither tensor nor module.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    >>> print(quantize(model, "int8", skip=["2"]))
    int8: 1 layers packed, 16,384 bytes became 4,352.
    2 stays dense: skipped by name.
    """
    chosen = get_scheme(scheme)
    if isinstance(target, torch.Tensor):
        return chosen.quantize(target)
    if not isinstance(target, nn.Module):
        message = f"`target` (a {type(target).__name__}) must be a tensor or a module."
        raise InvalidConfigError(message, argument="target", value=target)
    plan = LayerPlan(target, skip)
    for name, layer in plan.chosen.items():
        with naming(name):
            _check(layer.weight, chosen)
    return QuantizationReport(chosen, tuple(_pack_all(plan.chosen, chosen, measure)), tuple(plan.skipped))


def dequantize(model: nn.Module, *, dtype: torch.dtype | None = None) -> list[str]:
    """Make every packed weight of a model dense again, in place.

    Args:
        model: Any module.
        dtype: Of the dense weights; `None` keeps each weight's own.

    Returns:
        The names of the weights that were unpacked.

    >>> import torch
    >>> layer = torch.nn.Linear(64, 2)
    >>> report = quantize(layer, "int8")
    >>> dequantize(layer), type(layer.weight).__name__
    (['weight'], 'Parameter')
    """
    names: list[str] = []
    dense: dict[int, nn.Parameter] = {}
    for prefix, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if isinstance(parameter, QuantizedTensor):
                made = dense.setdefault(id(parameter), nn.Parameter(parameter.dequantize(dtype), requires_grad=False))
                setattr(module, name, made)
                names.append(f"{prefix}.{name}" if prefix else name)
    return names


class LayerPlan:
    """Which linear layers of a model are packed, and why the others are not.

    Args:
        model: Any module; may be on the meta device.
        skip: As for `quantize`.
        reasons: Further layers that stay dense, by whole name, each with its reason.

    Attributes:
        chosen: The layers to pack, by name.
        skipped: Name and reason of each of the others.

    Raises:
        UnknownNameError: A name in `skip` that no linear layer has.
    """

    def __init__(self, model: nn.Module, skip: Sequence[str], reasons: Mapping[str, str] | None = None) -> None:
        self.chosen: dict[str, nn.Linear] = {}
        self.skipped: list[tuple[str, str]] = []
        linear = {name or "weight": module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        _check_skip(skip, linear)
        others = _owners(model)
        adapters = _adapters(model)
        for name, layer in linear.items():
            reason = _reason_to_skip(name, layer, skip, others) or (reasons or {}).get(name)
            if not reason and name.startswith(adapters):
                reason = "it belongs to an adapter"
            if reason:
                self.skipped.append((name, reason))
            else:
                self.chosen[name] = layer


def _owners(model: nn.Module) -> dict[int, str]:
    """Parameters that a module other than a linear layer owns, by identity, with the name of that module."""
    return {
        id(parameter): name
        for name, module in model.named_modules()
        if not isinstance(module, nn.Linear)
        for parameter in module.parameters(recurse=False)
    }


def _adapters(model: nn.Module) -> tuple[str, ...]:
    """How the names of layers begin that belong to an adapter; tuner layers of peft tell what is theirs."""
    return tuple(
        f"{name}.{part}."
        for name, module in model.named_modules()
        for part in getattr(module, "adapter_layer_names", ())
    )


def _reason_to_skip(name: str, layer: nn.Linear, skip: Sequence[str], others: dict[int, str]) -> str:
    if any(names_layer(pattern, name) for pattern in skip):
        return "skipped by name"
    if "weight" not in dict(layer.named_parameters(recurse=False)):
        return "its weight is computed by a parametrization"
    if nn.parameter.is_lazy(layer.weight):
        return "it has no weight before its first batch"
    if isinstance(layer.weight, QuantizedTensor):
        return f"packed already, as {layer.weight.scheme.name}"
    if id(layer.weight) in others:
        return f"its weight is that of {others[id(layer.weight)]}, which is read by row"
    return ""


def names_layer(pattern: str, name: str) -> bool:
    """Tell whether a name in `skip` means a layer: all of its name, its end, or a module around it.

    >>> [names_layer(p, "model.layers.1.up_proj") for p in ("up_proj", "model.layers.1", "layers.1", "proj", "model.layers.10")]
    [True, True, True, False, False]
    """
    return f".{pattern}." in f".{name}."


def _check_skip(skip: Sequence[str], linear: dict[str, nn.Linear]) -> None:
    for pattern in skip:
        if not any(names_layer(pattern, name) for name in linear):
            known = {name.rpartition(".")[2] for name in linear}
            raise UnknownNameError("linear layer of the model", pattern, known, remedy="Change `skip`.")


def _check(weight: torch.Tensor, scheme: Scheme) -> None:
    scheme.check(weight)
    if largest_magnitude(weight) > _HUGE:  # packed on trial, before anything is replaced
        scheme.checked_parts(weight.detach())


def _pack_all(layers: dict[str, nn.Linear], scheme: Scheme, measure: bool) -> Iterator[PackedLayer]:
    made: dict[int, nn.Parameter] = {}
    for done, (name, layer) in enumerate(layers.items()):
        emit(Progress(phase="Packing the weights", done=done, total=len(layers), unit="layers"))
        dense = layer.weight
        if id(dense) in made:  # two layers that share one weight go on sharing it
            layer.weight = made[id(dense)]
            continue
        packed = scheme.quantize(dense)
        error = relative_error(packed.dequantize(torch.float32), dense) if measure else None
        layer.weight = made[id(dense)] = nn.Parameter(packed, requires_grad=False)
        yield PackedLayer(name, tuple(dense.shape), dense.nbytes, packed.packed_bytes, error)
    if layers:
        emit(Progress(phase="Packing the weights", done=len(layers), total=len(layers), unit="layers"))


def relative_error(approximate: torch.Tensor, exact: torch.Tensor) -> float:
    """Return `|a - e| / |e|` in the Frobenius norm; 0 when both are zero.

    >>> round(relative_error(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])), 6)
    1.0
    """
    size = torch.linalg.vector_norm(exact.detach().float()).item()
    distance = torch.linalg.vector_norm(approximate.float() - exact.detach().float()).item()
    return distance / size if size else float(distance > 0)


@contextmanager
def naming(layer: str) -> Generator[None]:
    """Put the name of a layer in front of an error about its weight.

    Args:
        layer: The name.
    """
    try:
        yield
    except CoreError as error:
        error.message = f"{layer}: {error.message}"
        raise
