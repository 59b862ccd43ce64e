"""transformers' BitNet checkpoints in and out: trits four rows a byte, and one scale a weight, in either of two conventions.

    layer.weight         uint8 [out / 4, in]; bits 2p of row i hold trit + 1 of row i + p * out / 4
    layer.weight_scale   [1]

    linear_class      what is stored      what its module does with it
    bitlinear         1 / mean |w|        divides its output by it
    autobitlinear     mean |w|            multiplies its output by it (offline mode)

The configuration of a checkpoint says which one it is (`quantization_config.linear_class`, `bitlinear` where it says nothing);
the tensors do not, and taking one for the other is a wrong model. Both modules round their input to int8 a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import UnknownNameError
from bedstone.kernels.layouts import only_trits, pack_trit_rows, pack_trits, unpack_trit_rows, unpack_trits
from bedstone.quant.formats.errors import WeightFormatError
from bedstone.quant.tensor import QuantizedTensor
from bedstone.quant.ternary import Ternary

if TYPE_CHECKING:
    from collections.abc import Mapping

LINEAR_CLASSES = ("bitlinear", "autobitlinear")
"""The conventions by the name of transformers' `linear_class`."""

_FORMAT = "bitnet"
_ROWS_A_BYTE = 4
_DAMAGED = "The checkpoint is damaged or of another kind; get it again."


def to_bitnet(state: Mapping[str, torch.Tensor], *, linear_class: str = "bitlinear") -> dict[str, torch.Tensor]:
    """Return a state dict as transformers' BitNet modules load it.

    Args:
        state: Tensors by name; packed ones are ternary with one scale a tensor. The others pass unchanged.
        linear_class: `bitlinear` or `autobitlinear`; must be that of the configuration it is saved with.

    Returns:
        Tensors by name; the trits are exact, the scale is float32. transformers rounds it to the dtype that the model is loaded in.

    Raises:
        WeightFormatError: A packed weight that the format has no form for, named: another scheme or granularity, rows that are
            not a multiple of 4, a name that does not end in `weight`.
        UnknownNameError: There is no such linear class.

    >>> import bedstone as bs
    >>> tensors = to_bitnet({"up.weight": bs.quantize(torch.full((8, 6), 0.5), "ternary")})
    >>> tensors["up.weight"].shape, tensors["up.weight_scale"]
    (torch.Size([2, 6]), tensor([2.]))
    """
    _check_class(linear_class)
    made: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, QuantizedTensor):
            made[name] = tensor
            continue
        _check_weight(name, tensor)
        codes = unpack_trits(tensor.parts["packed"], tensor.shape[1])
        scale = tensor.parts["scale"].view(1)
        made[name] = pack_trit_rows(codes)
        made[f"{name}_scale"] = 1 / scale if linear_class == "bitlinear" else scale
    return made


def from_bitnet(
    state: Mapping[str, torch.Tensor], *, linear_class: str = "bitlinear", dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """Return a state dict whose BitNet weights are packed ternary weights of ours.

    Args:
        state: Tensors by name, as transformers saves them; an `autobitlinear` weight may also be its trits as floating numbers.
        linear_class: `bitlinear` or `autobitlinear`; the configuration says it, the tensors do not.
        dtype: Of the weights; `None` takes that of their scale.

    Returns:
        Tensors by name; the trits are the same. The scale is the one stored, or for `bitlinear` its reciprocal in float32.

    Raises:
        WeightFormatError: A weight that is damaged or not of this form, named.
        UnknownNameError: There is no such linear class.

    >>> import bedstone as bs
    >>> state = to_bitnet({"up.weight": bs.quantize(torch.full((8, 6), 0.5), "ternary")})
    >>> from_bitnet(state)["up.weight"].dequantize()[0]
    tensor([0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000])
    """
    _check_class(linear_class)
    scales = {f"{name}_scale" for name in state if name.endswith("weight") and f"{name}_scale" in state}
    made: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if f"{name}_scale" in scales:
            made[name] = _read(name, tensor, state[f"{name}_scale"], linear_class, dtype)
        elif name not in scales:
            _refuse_half(name, tensor)
            made[name] = tensor
    return made


def _read(
    name: str, weight: torch.Tensor, stored: torch.Tensor, linear_class: str, dtype: torch.dtype | None
) -> QuantizedTensor:
    if not stored.is_floating_point() or stored.numel() != 1:
        message = f"The scale of {name!r} is {stored.dtype} {tuple(stored.shape)}; it must be one floating number."
        raise _fault(name, message, _DAMAGED)
    value = stored.item()
    if not (0 < value < float("inf")):
        raise _fault(name, f"The scale of {name!r} is {value}; it must be above 0 and finite.", _DAMAGED)
    codes = _codes(name, weight)
    scale = stored.detach().float().view(1, 1)
    scale = 1 / scale if linear_class == "bitlinear" else scale.clone()
    parts = {"packed": pack_trits(codes), "scale": scale}
    return QuantizedTensor(parts, Ternary(), codes.shape, dtype or stored.dtype)


def _codes(name: str, weight: torch.Tensor) -> torch.Tensor:
    if weight.ndim != 2:  # noqa: PLR2004
        raise _fault(name, f"{name!r} has shape {tuple(weight.shape)}; a BitNet weight is a matrix.", _DAMAGED)
    if weight.dtype is torch.uint8:
        if not only_trits(weight):
            raise _fault(name, f"{name!r} holds a code of 3; trits are stored as 0, 1 and 2.", _DAMAGED)
        return unpack_trit_rows(weight)
    trits = weight.detach().float()
    if not bool((trits.abs() * (trits.abs() - 1) == 0).all()):
        message = f"{name!r} is {weight.dtype} and holds values other than -1, 0 and 1."
        raise _fault(name, message, "Pack a master weight with `quantize(weight, 'ternary')`.")
    return (trits + 1).to(torch.uint8)


def _check_weight(name: str, weight: QuantizedTensor) -> None:
    scheme = weight.scheme
    if not isinstance(scheme, Ternary) or scheme.granularity != "tensor":
        message = f"BitNet has no form for {name!r}, which is packed as {scheme}: it has trits and one scale a tensor."
        raise _fault(name, message, "Pack it as Ternary(), or dequantize it.")
    if weight.ndim != 2 or not (name == "weight" or name.endswith(".weight")):  # noqa: PLR2004
        message = f"BitNet keeps trits in the `weight` of a linear layer, and {name!r} of shape {tuple(weight.shape)} is none."
        raise _fault(name, message, "Dequantize it.")
    if weight.shape[0] % _ROWS_A_BYTE:
        message = (
            f"{name!r} has {weight.shape[0]} rows; BitNet packs {_ROWS_A_BYTE} rows a byte, so their number must be a multiple of "
            f"{_ROWS_A_BYTE}, else rows would be added."
        )
        raise _fault(name, message, "Leave this layer dense.", rows=weight.shape[0])


def _refuse_half(name: str, tensor: torch.Tensor) -> None:
    if name.endswith("weight") and tensor.dtype is torch.uint8:
        message = f"{name + '_scale'!r} is missing, which the packed weight {name!r} needs."
        raise _fault(name, message, _DAMAGED)


def _check_class(linear_class: str) -> None:
    if linear_class not in LINEAR_CLASSES:
        raise UnknownNameError("linear class of BitNet", linear_class, LINEAR_CLASSES)


def _fault(name: str, message: str, remedy: str, **facts: Any) -> WeightFormatError:
    return WeightFormatError(message, format=_FORMAT, weight=name, remedy=remedy, **facts)
