"""Cut packed weights over several processes: what `fully_shard` can cut, what it cannot, and what to do about it.

FSDP2 cuts a weight of N rows over R processes every `ceil(N / R)` rows. A scheme can be cut where its `slice_rows` says so:

scheme                                            cut
int8, fp8, ternary; a scale a row or a block      anywhere
fp8, ternary; one scale for the tensor            anywhere; the scale lies on every process
nf4, fp4                                          between blocks: anywhere if the columns are a multiple of the block size
nf4, fp4 with double quantization                 between groups of 256 scales, for blocks of 64 each 16,384 weights

A cut that a scheme refuses is an error of `fully_shard`, never a weight that is unpacked in silence. How a cut weight is kept and
gathered stands in `row_shard.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from bedstone.core.errors import InvalidConfigError
from bedstone.kernels.fourbit.reference import dequantize_absmax
from bedstone.quant.errors import QuantizationError
from bedstone.quant.tensor import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


@dataclass(frozen=True, slots=True)
class ShardingReport:
    """What `prepare_for_sharding` found.

    Attributes:
        expanded: Names of the weights whose nested scales became plain ones.
        whole: The weights that cannot be cut, by name; every rank must keep them whole.
        reasons: Why, by the same names.
    """

    expanded: tuple[str, ...]
    whole: Mapping[str, nn.Parameter]
    reasons: Mapping[str, str]


def prepare_for_sharding(model: nn.Module, ranks: int) -> ShardingReport:
    """Make the packed weights of a model fit for `fully_shard`, in place, and tell which of them cannot be cut.

    A weight whose scales are nested (double quantization) can be cut only between groups of 256 scales. Where a cut would fall
    inside a group, its scales become plain float32: the weights stay the same bit for bit, at 4.5 instead of 4.127 bits each.

    Args:
        model: Any module, before `fully_shard`.
        ranks: Over how many processes each weight will be cut: the size of the mesh, or of its sharded dimension.

    Returns:
        What was changed, and what must be passed to `fully_shard` as `ignored_params`.

    Raises:
        InvalidConfigError: `ranks` is below 1.

    >>> import bedstone as bs
    >>> layer = nn.Linear(96, 3, bias=False)
    >>> _ = bs.quantize(layer, "nf4")
    >>> prepare_for_sharding(layer, ranks=3).reasons
    {'weight': 'nf4 cannot be cut at rows 0 to 1: a block of 64 ends every 2 rows of 96.'}
    """
    if ranks < 1:
        message = f"`ranks` (={ranks!r}) must be at least 1."
        raise InvalidConfigError(message, argument="ranks", value=ranks)
    expanded: list[str] = []
    whole: dict[str, nn.Parameter] = {}
    reasons: dict[str, str] = {}
    made: dict[int, tuple[nn.Parameter, str]] = {}
    for prefix, module in model.named_modules():
        for short, parameter in list(module.named_parameters(recurse=False)):
            if not isinstance(parameter, QuantizedTensor):
                continue
            name = f"{prefix}.{short}" if prefix else short
            if id(parameter) not in made:  # layers that share a weight go on sharing it
                made[id(parameter)] = _fit_to_cut(parameter, ranks)
            fit, reason = made[id(parameter)]
            if fit is not parameter:
                setattr(module, short, fit)
                expanded.append(name)
            if reason:
                whole[name], reasons[name] = fit, reason
    return ShardingReport(tuple(expanded), whole, reasons)


def expand_scales(weight: QuantizedTensor) -> QuantizedTensor:
    """Return a weight without double quantization that unpacks to the same values, bit for bit.

    Args:
        weight: Of a scheme of four bits; one without nested scales is returned as it is.

    >>> import torch
    >>> import bedstone as bs
    >>> nested = bs.quantize(torch.randn(4, 64), bs.quant.NF4(double_quant=True))
    >>> plain = expand_scales(nested)
    >>> plain.scheme, torch.equal(plain.dequantize(), nested.dequantize())
    (NF4(block_size=64, double_quant=False), True)
    """
    parts = weight.parts
    if "nested_absmax" not in parts:
        return weight
    scheme: Any = weight.scheme
    absmax = dequantize_absmax(parts["absmax"], parts["nested_absmax"], parts["offset"])
    plain = {"packed": parts["packed"], "absmax": absmax}
    return QuantizedTensor(plain, replace(scheme, double_quant=False), weight.shape, weight.dtype)


def why_not_cut(weight: QuantizedTensor, rows: int) -> str:
    """Return why a weight cannot be cut every so many rows, or nothing when it can.

    Args:
        weight: Any packed weight.
        rows: Of each piece; the last may be shorter.
    """
    scheme, shape = weight.scheme, tuple(weight.shape)
    try:
        for start in range(0, shape[0], max(rows, 1)):
            scheme.slice_rows(weight.parts, shape, start, min(start + rows, shape[0]))
    except QuantizationError as error:
        return error.message
    return ""


def _fit_to_cut(parameter: Any, ranks: int) -> tuple[nn.Parameter, str]:
    """Return a parameter that can be cut; the given one, and why not, where there is none."""
    rows = -(-parameter.shape[0] // ranks)
    if not why_not_cut(parameter, rows):
        return parameter, ""
    expanded = expand_scales(parameter)
    reason = why_not_cut(expanded, rows)
    return (parameter, reason) if reason else (nn.Parameter(expanded, requires_grad=False), "")


# --- what torch calls on a weight that is being sharded ------------------------------------------


def is_being_sharded(weight: torch.Tensor) -> bool:
    """Tell whether FSDP2 has taken a parameter up: it numbers each one before it cuts it."""
    return hasattr(weight, "_fsdp_orig_uid")


def check_cut(weight: QuantizedTensor, rows: int, dim: int) -> None:
    """Refuse a cut of FSDP2 that would have to unpack the weight.

    Raises:
        QuantizationError: The scheme cannot be cut there, or the cut is not along the rows.
    """
    if dim not in (0, -weight.ndim):
        message = f"A packed {weight.scheme.name} weight is sharded by rows, Shard(0), not Shard({dim})."
        raise QuantizationError(message, scheme=weight.scheme.name, shape=tuple(weight.shape), dim=dim)
    if reason := why_not_cut(weight, rows):
        remedy = (
            "Call bedstone.quant.sharding.prepare_for_sharding(model, ranks) first: it expands nested scales, and names the "
            "weights to pass to fully_shard as ignored_params."
        )
        raise QuantizationError(reason, scheme=weight.scheme.name, remedy=remedy, shape=tuple(weight.shape), rows=rows)
