"""What FSDP2 keeps of a packed weight: rows that stay packed, are gathered as bytes, and are never unpacked.

torch lets a tensor class take part in `fully_shard`. What it asks for, and what a packed weight answers:

when                  torch calls                                   answer
fully_shard           `weight.chunk(ranks)`                         rows that share the parts, or an error (`sharding.py`)
                      `weight.new_zeros(rows of a rank)`            a `RowShard` of zeros
                      `narrow`, `copy_`, `view(-1)`                 rows packed to packed, exact; a flat view that is unpacked if read
before each use       `shard.fsdp_pre_all_gather(mesh)`             the parts that grow with the rows, as bytes
after the gather      `shard.fsdp_post_all_gather(...)`             a `QuantizedTensor` on the gathered bytes, without a copy
afterwards            frees the gathered bytes                      only the shard stays

The gathered weight is an ordinary `QuantizedTensor`, so the product, its gradient and adapters are those of one process. Parts
that do not grow with the rows, such as one scale for the whole tensor, lie on every rank.

Ranks beyond the last full cut hold fewer rows or none; what they lack is padded with zeros for the gather and cut off after it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import torch

from bedstone.quant.errors import PackedWriteError
from bedstone.quant.tensor import QuantizedTensor
from bedstone.quant.view import ReadOnlyView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch.distributed.device_mesh import DeviceMesh

    from bedstone.quant.scheme import Parts, Scheme

aten = torch.ops.aten


class RowShard(QuantizedTensor):
    """The rows of a packed weight that one rank keeps; made by `fully_shard`, not by hand.

    Attributes:
        whole_rows: Rows of the whole weight.
        rank_rows: Rows that each rank gives to a gather, the missing ones as zeros.
    """

    whole_rows: int
    rank_rows: int

    def with_parts(self, parts: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> RowShard:
        """Return a shard of the same place and shape with other parts."""
        return _shard(parts, self, self.shape[0], dtype or self.dtype)

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        names, context = super().__tensor_flatten__()
        return names, (*context, self.whole_rows, self.rank_rows)

    @classmethod
    def __tensor_unflatten__(
        cls, inner: dict[str, torch.Tensor], context: Any, outer_size: Any, outer_stride: Any
    ) -> RowShard:
        made: Any = super().__tensor_unflatten__(inner, context[:2], outer_size, outer_stride)
        made.whole_rows, made.rank_rows = context[2:]
        return made

    def fsdp_pre_all_gather(self, mesh: DeviceMesh) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor | None]]:
        """Return what this rank gives to the gather, and for every part by name: itself, or nothing if it is gathered.

        Args:
            mesh: Of the gather. The signature with the mesh alone is the one for which torch allows other sizes than that of
                the dense weight, and so uneven shards.
        """
        parts, gathered = self.padded_parts(self.rank_rows), _growing(self, self.rank_rows)
        if (
            mesh.size() == 1
        ):  # torch copies one input alone where one rank has all rows; the others are whole as they are
            gathered = gathered[:1]
        inputs = tuple(parts[name].view(torch.uint8) for name in gathered)
        return inputs, {name: None if name in gathered else part for name, part in parts.items()}

    def fsdp_post_all_gather(
        self,
        outputs: tuple[torch.Tensor, ...],
        kept: dict[str, torch.Tensor | None],
        param_dtype: torch.dtype,
        *,
        out: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]] | None:
        """Return the whole weight on the gathered bytes.

        Args:
            outputs: The gathered parts, those of all ranks one behind the other.
            kept: The other parts.
            param_dtype: Of the whole weight; the dtype of mixed precision.
            out: What an earlier call returned. Its gathered parts lie on `outputs`, so they have their values already.
        """
        if out is not None:
            _refresh(out, kept)
            return None
        gathered = iter(outputs)
        parts = {
            name: next(gathered).view(self.parts[name].dtype) if part is None else part for name, part in kept.items()
        }
        return self.whole(parts, param_dtype), ()

    def whole(self, parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> QuantizedTensor:
        """Return the whole weight.

        Args:
            parts: Of the rows of all ranks, padding included.
            dtype: Of the weight.
        """
        shape = (self.whole_rows, *self.shape[1:])
        return QuantizedTensor(_first_rows(parts, self.scheme, shape), self.scheme, shape, dtype)

    def repacked(self, dense: torch.Tensor, op: str) -> Parts:
        """Return the parts of dense rows; refused where every rank would find another scale for a part that all share.

        Args:
            dense: Of the shape of these rows.
            op: What writes, for the message.

        Raises:
            PackedWriteError: A part does not grow with the rows.
        """
        common = sorted(set(self.parts) - set(_growing(self, self.rank_rows)))
        if common and self.shape[0] != self.whole_rows:
            message = (
                f"{op} would write to rows of a sharded {self.scheme.name} weight, all of which share `{common[0]}`."
            )
            remedy = "Write to the whole weight before fully_shard, or load a packed checkpoint."
            raise PackedWriteError(message, scheme=self.scheme.name, op=op, remedy=remedy)
        return super().repacked(dense, op)

    def padded_parts(self, rows: int) -> dict[str, torch.Tensor]:
        """Return the parts of at least as many rows, padded with zeros; as they are where nothing lacks."""
        wanted = part_shapes(self.scheme, (rows, *self.shape[1:]))
        return {name: _padded(part, wanted[name]) for name, part in self.parts.items()}

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        handler = _HANDLERS.get(func)
        if handler is not None and args and isinstance(args[0], RowShard):
            result = handler(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        return super().__torch_dispatch__(func, types, args, kwargs)


class FlatShard(ReadOnlyView):
    """The elements of a shard in one line. FSDP2 keeps one and never reads it; it is unpacked when somebody does."""

    rows: RowShard

    def __new__(cls, rows: RowShard) -> Self:
        """Return the wrapper; `__init__` gives it what it shows."""
        return torch.Tensor._make_wrapper_subclass(cls, (rows.numel(),), dtype=rows.dtype, device=rows.device)  # noqa: SLF001

    def __init__(self, rows: RowShard) -> None:
        self.rows, self.scheme = rows, rows.scheme.name

    @property
    def dense(self) -> torch.Tensor:  # pyright: ignore[reportIncompatibleVariableOverride] - computed instead of kept
        """The dense elements, fresh."""
        return self.rows.dequantize().view(-1)

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["rows"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, context: Any, outer_size: Any, outer_stride: Any) -> FlatShard:
        del context, outer_size, outer_stride
        return cls(inner["rows"])


def empty_shard(weight: QuantizedTensor, size: Sequence[int]) -> Any:
    """Answer `weight.new_zeros(size)` of FSDP2: room for the rows of one rank."""
    if tuple(size[1:]) != tuple(weight.shape[1:]):
        return NotImplemented
    return _zeros(weight, size[0], whole_rows=weight.shape[0], rank_rows=size[0])


@lru_cache(maxsize=1024)
def part_shapes(scheme: Scheme, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parts that a scheme packs a weight into.

    >>> from bedstone.quant import NF4
    >>> part_shapes(NF4(), (4, 64))
    {'packed': (128,), 'absmax': (4,)}
    """
    return {name: tuple(part.shape) for name, part in scheme.pack(torch.empty(shape, device="meta")).items()}


def _shard(parts: Mapping[str, torch.Tensor], like: RowShard, rows: int, dtype: torch.dtype) -> RowShard:
    made = RowShard(parts, like.scheme, (rows, *like.shape[1:]), dtype)
    made.whole_rows, made.rank_rows = like.whole_rows, like.rank_rows
    return made


def _zeros(weight: QuantizedTensor, rows: int, *, whole_rows: int, rank_rows: int) -> RowShard:
    shape = (rows, *weight.shape[1:])
    wanted, grows = part_shapes(weight.scheme, shape), _growing(weight, rank_rows)
    parts = {
        name: part.new_zeros(wanted[name]) if name in grows else part.clone() for name, part in weight.parts.items()
    }
    made = RowShard(parts, weight.scheme, shape, weight.dtype)
    made.whole_rows, made.rank_rows = whole_rows, rank_rows
    return made


def _first_rows(parts: Mapping[str, torch.Tensor], scheme: Scheme, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Return the parts of the first rows, as views. Unlike `slice_rows` it may cut a block: what follows is padding."""
    wanted = part_shapes(scheme, shape)
    return {name: part if part.ndim == 0 else part[: wanted[name][0]] for name, part in parts.items()}


def _growing(weight: QuantizedTensor, rows: int) -> list[str]:
    """Return the names of the parts that grow with the rows; the others, such as one scale for all, every rank has."""
    rest = weight.shape[1:]
    one, two = (part_shapes(weight.scheme, (count, *rest)) for count in (max(rows, 1), 2 * max(rows, 1)))
    return [name for name in weight.parts if one[name] != two[name]]


def _padded(part: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if tuple(part.shape) == shape:
        return part
    room = part.new_zeros(shape)
    room[: part.shape[0]] = part
    return room


def _refresh(whole: torch.Tensor, kept: Mapping[str, torch.Tensor | None]) -> None:
    """Bring the parts that are not gathered up to date: another tensor stands in the shard after a load or a move."""
    assert isinstance(whole, QuantizedTensor)
    for name, part in whole.parts.items():
        new = kept[name]
        if new is not None and new.data_ptr() != part.data_ptr():
            with torch.autograd._unsafe_preserve_version_counter(part):  # noqa: SLF001  # pyright: ignore[reportPrivateImportUsage] - as FSDP2 does
                part.copy_(new[: part.shape[0]] if part.ndim else new)


# --- handlers of a shard -------------------------------------------------------------------------


def _slice(shard: RowShard, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    first, last, _ = slice(start, end).indices(shard.shape[0])
    if dim != 0 or step != 1 or first != 0:
        return NotImplemented
    if shard.shape[0] > shard.rank_rows and last == shard.whole_rows:  # the padding behind a gathered weight
        return shard.whole(shard.parts, shard.dtype)
    parts = _first_rows(shard.parts, shard.scheme, (last, *shard.shape[1:]))
    return _shard(parts, shard, last, shard.dtype)


def _new_zeros(shard: RowShard, size: Sequence[int], **options: Any) -> Any:
    """FSDP2 pads a shard that was replaced, by a load or a move."""
    short = shard.shape[0] != shard.rank_rows and tuple(size) == (shard.rank_rows, *shard.shape[1:])
    if not short or options.get("dtype") not in (None, shard.dtype):
        return NotImplemented
    return _zeros(shard, size[0], whole_rows=shard.whole_rows, rank_rows=shard.rank_rows)


def _view(shard: RowShard, size: Sequence[int]) -> Any:
    return FlatShard(shard) if tuple(size) in ((-1,), (shard.numel(),)) and shard.ndim > 1 else NotImplemented


def _pin_memory(shard: RowShard, device: Any = None) -> RowShard:
    return shard.with_parts({name: part.pin_memory(device) for name, part in shard.parts.items()})


def _is_pinned(shard: RowShard, device: Any = None) -> bool:
    return all(part.is_pinned(device) for part in shard.parts.values())


def _pad(shard: RowShard, pad: Sequence[int], value: float = 0) -> Any:
    """DTensor pads the rows of a short rank before it gathers a full tensor."""
    *others, more = pad
    if any(others) or more < 0 or value != 0 or len(pad) != 2 * shard.ndim:
        return NotImplemented
    rows = shard.shape[0] + more
    return _shard(shard.padded_parts(rows), shard, rows, shard.dtype)


def _all_gather(shard: RowShard, ranks: int, group: Any) -> QuantizedTensor:
    """`full_tensor()` gathers packed bytes, as a forward pass does."""
    gather, wait = torch.ops._c10d_functional.all_gather_into_tensor, torch.ops._c10d_functional.wait_tensor  # noqa: SLF001
    grows = _growing(shard, shard.rank_rows)
    parts = {name: part.clone() for name, part in shard.parts.items()}  # the result shares nothing with the model
    for name in grows:
        parts[name] = wait(gather(parts[name].view(torch.uint8), ranks, group)).view(parts[name].dtype)
    rows = ranks * shard.shape[0]
    return shard.whole(parts, shard.dtype) if rows == shard.whole_rows else _shard(parts, shard, rows, shard.dtype)


_HANDLERS: dict[Any, Callable[..., Any]] = {
    aten.slice.Tensor: _slice,
    aten.new_zeros.default: _new_zeros,
    aten.view.default: _view,
    aten._pin_memory.default: _pin_memory,  # noqa: SLF001
    aten.is_pinned.default: _is_pinned,
    aten.constant_pad_nd.default: _pad,
}
if torch.distributed.is_available():
    _HANDLERS[torch.ops._c10d_functional.all_gather_into_tensor.default] = _all_gather  # noqa: SLF001
