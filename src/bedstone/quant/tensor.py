"""One class for every packed weight: a tensor that lives in the `weight` of an ordinary `nn.Linear`.

It has the shape, dtype and device of the dense weight and holds the parts that a scheme packed it into. Whoever computes with
it sees a dense weight: `F.linear` takes the scheme's own product, everything else unpacks. Whoever writes to it as a whole
repacks it (in place, `.data = ...`, `copy_`, `load_state_dict`); a write that would be lost is refused. This is what lets every
peft tuner, `state_dict`, `torch.compile`, `deepcopy`, `Module.to` and transformers work unchanged.

It is frozen: gradients flow through it to the input, never into it.

What each torch operation does stands in `tensor_ops.py`.
"""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.nn import functional

from bedstone.core.errors import ShapeMismatchError
from bedstone.quant.errors import PackedWriteError, QuantizationError
from bedstone.quant.scheme import Parts, Scheme, scheme_from_dict
from bedstone.quant.view import read_only_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PREFIX = "_part_"  # of the attribute that holds a part, so that no part's name meets one of torch's


class QuantizedTensor(torch.Tensor):
    """A weight packed by a scheme; made by `quantize`, not by hand.

    Args:
        parts: The plain tensors that the scheme's `pack` returned, by name, all on one device.
        scheme: How they are packed.
        shape: Of the dense weight.
        dtype: Of the dense weight; the parts do not depend on it.

    Attributes:
        scheme: As given.

    >>> import bedstone as bs
    >>> q = bs.quantize(torch.ones(2, 64), "nf4")
    >>> q
    QuantizedTensor(nf4, shape=(2, 64), dtype=torch.float32, device=cpu, 4.5 bits a weight)
    >>> torch.equal(q.dequantize(), torch.ones(2, 64))
    True
    """

    scheme: Scheme
    tied: str = ""
    """Of rows of another weight: a part that the other rows share, so that a write here would change them too."""
    _part_names: tuple[str, ...]

    def __new__(
        cls,
        parts: Mapping[str, torch.Tensor],
        scheme: Scheme,
        shape: Sequence[int],
        dtype: torch.dtype,
    ) -> Self:
        """Return the wrapper; `__init__` gives it its parts."""
        del scheme
        device = next(iter(parts.values())).device
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)  # noqa: SLF001 - torch's way

    def __init__(
        self, parts: Mapping[str, torch.Tensor], scheme: Scheme, shape: Sequence[int], dtype: torch.dtype
    ) -> None:
        del shape, dtype
        self.scheme = scheme
        self.adopt(parts)

    # --- what users ask ------------------------------------------------------------------------------

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """The plain tensors by name; they share memory with this weight."""
        return {name: getattr(self, _PREFIX + name) for name in self._part_names}

    @property
    def packed_bytes(self) -> int:
        """The bytes that this weight really takes, scales included; `nbytes` is that of the dense weight."""
        return sum(part.nbytes for part in self.parts.values())

    @property
    def bits_per_param(self) -> float:
        """Bits a weight, scales included; 0 for an empty one."""
        return 8 * self.packed_bytes / self.numel() if self.numel() else 0.0

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] - torch's own takes nothing
        """Return the dense weight.

        Args:
            dtype: Of the result; `None` for the weight's own.

        Returns:
            A fresh plain tensor of the same shape and device.
        """
        return self.scheme.unpack(self.parts, self.shape, dtype or self.dtype)

    def tolist(self) -> Any:
        """Return the dense values as nested lists."""
        return self.dequantize().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Return a dense copy as an array that refuses to be written: a write would not reach this weight."""
        return read_only_array(self.dequantize(), force=force)

    def __repr__(self, *, tensor_contents: object = None) -> str:
        del tensor_contents
        size = f"shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device}"
        return f"{type(self).__name__}({self.scheme.name}, {size}, {self.bits_per_param:.4g} bits a weight)"

    # --- inside the room -----------------------------------------------------------------------------

    def adopt(self, parts: Mapping[str, torch.Tensor]) -> None:
        """Take these tensors as the parts, without a copy.

        Args:
            parts: As the scheme's `pack` returns them.
        """
        self._part_names = tuple(parts)
        for name, part in parts.items():
            setattr(self, _PREFIX + name, part)

    def repacked(self, dense: torch.Tensor, op: str) -> Parts:
        """Return the parts that a dense weight in place of this one would have.

        Args:
            dense: Of the same shape.
            op: What wrote it, for the message.

        Raises:
            PackedWriteError: It has another shape.
            QuantizationError: The scheme cannot hold it.
        """
        self.check_writable(op)
        if dense.shape != self.shape:
            message = (
                f"{op} would change the shape of a packed weight from {tuple(self.shape)} to {tuple(dense.shape)}."
            )
            raise PackedWriteError(message, scheme=self.scheme.name, op=op, remedy="Dequantize it first.")
        return self.scheme.checked_parts(dense)

    def check_writable(self, op: str) -> None:
        """Refuse a write to rows that would change a part of other rows as well.

        Args:
            op: What would write.

        Raises:
            PackedWriteError: These are such rows.
        """
        if self.tied:
            message = f"{op} would write to rows of a packed weight that share `{self.tied}` with its other rows."
            raise PackedWriteError(message, scheme=self.scheme.name, op=op, remedy="Write to the whole weight instead.")

    def fill(self, parts: Parts) -> None:
        """Copy parts into the memory of this weight, so that everything that shares it sees them.

        Args:
            parts: Of a weight of the same scheme and shape.
        """
        for name, part in self.parts.items():
            part.copy_(parts[name])

    def with_parts(self, parts: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> QuantizedTensor:
        """Return a weight of the same scheme and shape with other parts.

        Args:
            parts: Of the new weight.
            dtype: Of the new weight; `None` keeps it.
        """
        return QuantizedTensor(parts, self.scheme, self.shape, dtype or self.dtype)

    # --- torch's protocols ---------------------------------------------------------------------------

    def __tensor_flatten__(self) -> tuple[list[str], tuple[Scheme, torch.dtype]]:
        return [_PREFIX + name for name in self._part_names], (self.scheme, self.dtype)

    @classmethod
    def __tensor_unflatten__(
        cls, inner: dict[str, torch.Tensor], context: tuple[Scheme, torch.dtype], outer_size: Any, outer_stride: Any
    ) -> QuantizedTensor:
        del outer_stride
        parts = {name.removeprefix(_PREFIX): part for name, part in inner.items()}
        return cls(parts, context[0], outer_size, context[1])

    def _stable_hash_for_caching(self) -> str:
        inner = [(name, part.shape, part.dtype, part.device) for name, part in self.parts.items()]
        return hashlib.sha256(repr((self.scheme, self.shape, self.dtype, inner)).encode()).hexdigest()

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantizedTensor:
        copied = self.with_parts({name: copy.deepcopy(part, memo) for name, part in self.parts.items()})
        memo[id(self)] = copied
        return _as_parameter(copied) if isinstance(self, torch.nn.Parameter) else copied

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        # Plain values only, so that `torch.load(weights_only=True)` needs to trust one function.
        # Codes travel as bytes, since torch cannot unpickle float8 tensors outside `torch.load`.
        parts = {
            name: part.view(torch.uint8) if part.dtype.itemsize == 1 else part for name, part in self.parts.items()
        }
        dtypes = {name: part.dtype for name, part in self.parts.items()}
        is_parameter = isinstance(self, torch.nn.Parameter)
        return rebuild, (parts, dtypes, self.scheme.to_dict(), tuple(self.shape), self.dtype, is_parameter)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear:
            return _linear(*args, **kwargs)
        # Compared with ==, since each access to a slot makes a new wrapper.
        if func == torch.Tensor.data.__set__ and isinstance(args[0], cls):  # pyright: ignore[reportAttributeAccessIssue]
            return _set_data(*args)
        if func in (torch.Tensor.share_memory_, torch.Tensor.is_shared):  # torch's own read a storage that is not there
            shared = [getattr(part, func.__name__)() for part in args[0].parts.values()]
            return args[0] if func is torch.Tensor.share_memory_ else all(shared)
        if func is torch.Tensor.requires_grad_ and (args[1:] or [kwargs.get("requires_grad", True)])[0]:
            raise _frozen(args[0])
        if func == torch.Tensor.requires_grad.__set__ and args[1]:  # pyright: ignore[reportAttributeAccessIssue]
            raise _frozen(args[0])
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - torch's way
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from bedstone.quant.tensor_ops import dispatch

        return dispatch(func, args, kwargs or {})


def rebuild(
    parts: dict[str, torch.Tensor],
    dtypes: dict[str, torch.dtype],
    scheme: dict[str, Any],
    shape: Sequence[int],
    dtype: torch.dtype,
    is_parameter: bool,
) -> QuantizedTensor:
    """Return a packed weight from what was pickled of it.

    Args:
        parts: The plain tensors; those of one byte an element as uint8.
        dtypes: The dtypes that they had.
        scheme: What `Scheme.to_dict` returned.
        shape: Of the dense weight.
        dtype: Of the dense weight.
        is_parameter: Whether it was a parameter of a module.
    """
    parts = {name: part.view(dtypes[name]) for name, part in parts.items()}
    made = QuantizedTensor(parts, scheme_from_dict(scheme), shape, dtype)
    return _as_parameter(made) if is_parameter else made


torch.serialization.add_safe_globals([rebuild])


def _linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:  # noqa: A002 - torch's name
    if isinstance(input, QuantizedTensor):
        input = input.dequantize()  # noqa: A001
    if isinstance(bias, QuantizedTensor):
        bias = bias.dequantize()
    if not isinstance(weight, QuantizedTensor):
        return functional.linear(input, weight, bias)
    if weight.ndim != 2:  # noqa: PLR2004 - no matrix: torch decides what it means
        return functional.linear(input, weight.dequantize(), bias)
    if not input.is_floating_point():
        message = f"A packed {weight.scheme.name} weight multiplies floating-point inputs, not {input.dtype}."
        raise QuantizationError(message, scheme=weight.scheme.name, dtype=input.dtype, remedy="Convert the input.")
    if not input.ndim or input.shape[-1] != weight.shape[1]:
        rows_columns = tuple(weight.shape)
        remedy = f"A weight of shape {rows_columns} multiplies inputs of {rows_columns[-1]} columns."
        raise ShapeMismatchError(
            expected=(*input.shape[:-1], rows_columns[-1]), actual=tuple(input.shape), argument="input", remedy=remedy
        )
    if _is_autocast(input):  # the function never reaches autocast's own key
        input = input.to(torch.get_autocast_dtype(input.device.type))  # noqa: A001
        bias = None if bias is None else bias.to(input.dtype)
    return weight.scheme.linear(input, weight.parts, weight.shape, bias)


def _is_autocast(x: torch.Tensor) -> bool:
    kind = x.device.type
    available = torch.amp.is_autocast_available(kind)  # asking whether it is on raises where it is not, as on meta
    return available and torch.is_autocast_enabled(kind) and x.dtype is not torch.float64


def _set_data(weight: QuantizedTensor, value: torch.Tensor) -> None:
    """`weight.data = value`: a packed value is adopted, a dense one is packed."""
    if not isinstance(value, QuantizedTensor):
        value = weight.scheme.quantize(value)
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - torch's way
        torch.Tensor.data.__set__(weight, value)  # pyright: ignore[reportAttributeAccessIssue] - shape, dtype and device of the wrapper
    weight.scheme, weight.tied = value.scheme, value.tied
    weight.adopt(value.parts)


def _as_parameter(weight: QuantizedTensor) -> Any:
    return torch.nn.Parameter(weight, requires_grad=False)


def _frozen(weight: QuantizedTensor) -> QuantizationError:
    return QuantizationError(
        f"A packed {weight.scheme.name} weight is frozen and cannot require a gradient, nor take the place of one that does. "
        "Train an adapter on it, dequantize it first, or freeze the layer: layer.requires_grad_(False).",
        scheme=weight.scheme.name,
    )
