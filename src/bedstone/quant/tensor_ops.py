"""What each ATen operation does with a packed weight.

operation                          result
detach, alias                      a packed weight that shares the parts
clone, _to_copy                    a packed weight with parts of its own; a change of dtype or device stays packed
copy_ into a packed weight         packed to packed of the same scheme is exact; values that it has already change nothing;
                                   all else is packed anew
narrow rows (slice, split)         a packed weight of these rows that shares the parts, where the scheme can be cut there;
                                   read-only if other rows have a part in common with them, such as one scale for all
view, as_strided of the same shape a packed weight that shares the parts
empty_like from meta to a device   a packed weight without values, for `Module.to_empty`
any other view                     a dense view that refuses to be written
in place, or `out=`                computed on a dense copy, then packed back into the parts
everything else                    computed on the dense weight
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_map_only

from bedstone.quant.errors import QuantizationError
from bedstone.quant.row_shard import empty_shard
from bedstone.quant.sharding import check_cut, is_being_sharded
from bedstone.quant.tensor import QuantizedTensor
from bedstone.quant.view import ReadOnlyView, operation_name, written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

aten = torch.ops.aten


def dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one operation at least one argument of which is a packed weight.

    Args:
        func: An overload of an operation.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    handler = _HANDLERS.get(func)
    if handler is not None and args and isinstance(args[0], QuantizedTensor):
        result = handler(*args, **kwargs)
        if result is not NotImplemented:
            return result
    return _on_dense(func, args, kwargs)


def _on_dense(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dense: dict[int, torch.Tensor] = {}

    def unpacked(weight: QuantizedTensor) -> torch.Tensor:
        return dense.setdefault(id(weight), weight.dequantize())

    plain_args = tree_map_only(QuantizedTensor, unpacked, args)
    plain_kwargs = tree_map_only(QuantizedTensor, unpacked, kwargs)
    result = func(*plain_args, **plain_kwargs)
    weights = [value for value in written(func, args, kwargs) if isinstance(value, QuantizedTensor)]
    if weights:
        # All of them are packed before the first is changed.
        packed = [weight.repacked(dense[id(weight)], operation_name(func)) for weight in weights]
        for weight, parts in zip(weights, packed, strict=True):
            weight.fill(parts)
        originals = {id(dense[id(weight)]): weight for weight in weights}
        return tree_map_only(torch.Tensor, lambda out: originals.get(id(out), out), result)
    return _read_only(result, args[0]) if _is_view(func) else result


def _is_view(func: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)  # noqa: SLF001


def _read_only(result: Any, weight: Any) -> Any:
    if not isinstance(weight, QuantizedTensor):
        return result
    return tree_map_only(torch.Tensor, lambda out: ReadOnlyView(out, weight.scheme.name), result)


# --- handlers ------------------------------------------------------------------------------------


def _share(weight: QuantizedTensor) -> QuantizedTensor:
    shared = weight.with_parts(weight.parts)
    shared.tied = weight.tied
    return shared


def _clone(weight: QuantizedTensor, *, memory_format: object = None) -> QuantizedTensor:
    del memory_format
    return weight.with_parts({name: part.clone() for name, part in weight.parts.items()})


def _to_copy(weight: QuantizedTensor, **options: Any) -> Any:
    dtype = options.pop("dtype", None) or weight.dtype
    if not dtype.is_floating_point:
        return NotImplemented
    move = {name: options[name] for name in ("device", "non_blocking") if options.get(name) is not None}
    parts = {name: aten._to_copy.default(part, **move) for name, part in weight.parts.items()}  # noqa: SLF001
    return weight.with_parts(parts, dtype)


def _copy_(weight: QuantizedTensor, source: torch.Tensor, non_blocking: bool = False) -> Any:
    if isinstance(source, QuantizedTensor) and (source.scheme, source.shape) == (weight.scheme, weight.shape):
        weight.check_writable("copy_")
        for name, part in weight.parts.items():
            part.copy_(source.parts[name], non_blocking)
        return weight
    dense = source.dequantize() if isinstance(source, QuantizedTensor) else source
    dense = dense.to(weight.device, weight.dtype).expand(weight.shape)
    if not _holds(weight, dense):
        weight.fill(weight.repacked(dense, "copy_"))
    return weight


def _holds(weight: QuantizedTensor, dense: torch.Tensor) -> bool:
    """Tell whether a weight has these values already: DDP copies each one onto itself, and to pack it anew may move it."""
    known = weight.device.type != "meta" and not isinstance(dense, FakeTensor)
    return known and torch.equal(weight.dequantize(), dense)


def _like(func: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """An operation that reads only shape, dtype and device: nothing is unpacked for it."""

    def handler(weight: QuantizedTensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return func(torch.empty(weight.shape, dtype=weight.dtype, device=weight.device), *args, **kwargs)

    return handler


def _empty_like(weight: QuantizedTensor, **options: Any) -> Any:
    if weight.device.type != "meta" or options.get("device") in (None, weight.device) or options.get("dtype"):
        return _like(aten.empty_like.default)(weight, **options)
    # `Module.to_empty` after a model was built on meta: memory for the packed weight, not for the dense one.
    parts = {name: torch.empty_like(part, device=options["device"]) for name, part in weight.parts.items()}
    return weight.with_parts(parts)


def _slice(
    weight: QuantizedTensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    rows = weight.shape[0]
    first, last, _ = slice(start, end).indices(rows)
    return _rows(weight, first, max(first, last)) if dim in (0, -weight.ndim) and step == 1 else NotImplemented


def _same_view(
    weight: QuantizedTensor, size: Sequence[int], stride: Sequence[int] | None = None, offset: int = 0
) -> Any:
    same = tuple(size) == tuple(weight.shape) and offset in (0, None)
    return _share(weight) if same and (stride is None or tuple(stride) == weight.stride()) else NotImplemented


def _new_zeros(weight: QuantizedTensor, size: Sequence[int], **options: Any) -> Any:
    shard = empty_shard(weight, size) if is_being_sharded(weight) else NotImplemented
    return _like(aten.new_zeros.default)(weight, size, **options) if shard is NotImplemented else shard


def _split(weight: QuantizedTensor, size: int, dim: int = 0) -> Any:
    if is_being_sharded(weight):
        check_cut(weight, size, dim)
    if dim not in (0, -weight.ndim):
        return NotImplemented
    rows = weight.shape[0]
    cut = [_rows(weight, first, min(first + size, rows)) for first in range(0, rows, size)] or [weight]
    return NotImplemented if any(part is NotImplemented for part in cut) else cut


def _rows(weight: QuantizedTensor, start: int, stop: int) -> Any:
    try:
        parts = weight.scheme.slice_rows(weight.parts, weight.shape, start, stop)
    except QuantizationError:  # the scheme cannot be cut here: the caller gets a dense view, which refuses writes
        return NotImplemented
    rows = QuantizedTensor(parts, weight.scheme, (stop - start, *weight.shape[1:]), weight.dtype)
    whole = stop - start == weight.shape[0]
    common = [name for name, part in parts.items() if not whole and part.shape == weight.parts[name].shape]
    rows.tied = common[0] if common else weight.tied
    return rows


_HANDLERS: dict[Any, Callable[..., Any]] = {
    aten.detach.default: _share,
    aten.alias.default: _share,
    aten.clone.default: _clone,
    aten._to_copy.default: _to_copy,  # noqa: SLF001
    aten.copy_.default: _copy_,
    aten.empty_like.default: _empty_like,
    aten.slice.Tensor: _slice,
    aten.split.Tensor: _split,
    aten.view.default: _same_view,
    aten.as_strided.default: _same_view,
    aten.new_zeros.default: _new_zeros,
    **{
        op: _like(op)
        for op in (
            aten.zeros_like.default,
            aten.ones_like.default,
            aten.full_like.default,
            aten.rand_like.default,
            aten.randn_like.default,
            aten.new_empty.default,
            aten.new_ones.default,
            aten.new_full.default,
        )
    },
}
if torch.distributed.is_available():  # what DTensor does with a gathered weight, whose parts have come already
    _HANDLERS[torch.ops._c10d_functional.wait_tensor.default] = _share  # noqa: SLF001
    _HANDLERS[torch.ops._c10d_functional._wrap_tensor_autograd.default] = _share  # noqa: SLF001
