"""A dense view of a packed weight: it can be read like any tensor, and refuses to be written.

`weight[0]` unpacks the weight and looks into the copy. A write to that copy would be lost in silence; here it is an error
that says what to write to. What is computed from a view is a plain tensor again.
"""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch.utils._pytree import tree_map_only

from bedstone.quant.errors import PackedWriteError


class ReadOnlyView(torch.Tensor):
    """A view of the dense copy of a packed weight.

    Args:
        dense: What it shows.
        scheme: The name of the weight's scheme, for the message.

    >>> import bedstone as bs
    >>> row = bs.quantize(torch.ones(2, 64), "nf4")[0]
    >>> row.sum()
    tensor(64.)
    >>> row.zero_()
    Traceback (most recent call last):
    bedstone.quant.errors.PackedWriteError: zero_ would write to a view of a packed nf4 weight, which is a copy, so the write \
would be lost. Write to the whole weight instead, for example `weight.copy_(dense)`.
    """

    dense: torch.Tensor
    scheme: str

    def __new__(cls, dense: torch.Tensor, scheme: str) -> Self:
        """Return the wrapper; `__init__` gives it what it shows."""
        del scheme
        return torch.Tensor._make_wrapper_subclass(  # noqa: SLF001 - torch's way
            cls, dense.shape, strides=dense.stride(), dtype=dense.dtype, device=dense.device
        )

    def __init__(self, dense: torch.Tensor, scheme: str) -> None:
        self.dense, self.scheme = dense, scheme

    def __repr__(self, *, tensor_contents: object = None) -> str:
        del tensor_contents
        return repr(self.dense)

    def tolist(self) -> Any:
        """Return the values as nested lists."""
        return self.dense.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Return the values as an array that refuses to be written, too."""
        return read_only_array(self.dense, force=force)

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        return copy.deepcopy(self.dense, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.dense.__reduce_ex__(protocol)

    def __tensor_flatten__(self) -> tuple[list[str], str]:
        return ["dense"], self.scheme

    @classmethod
    def __tensor_unflatten__(
        cls, inner: dict[str, torch.Tensor], context: str, outer_size: Any, outer_stride: Any
    ) -> ReadOnlyView:
        del outer_size, outer_stride
        return cls(inner["dense"], context)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Compared with ==, since each access to a slot makes a new wrapper.
        if func == torch.Tensor.data.__set__ and isinstance(args[0], cls):  # pyright: ignore[reportAttributeAccessIssue]
            raise _refusal(args[0], "data")
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - torch's way
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for value in written(func, args, kwargs):
            if isinstance(value, ReadOnlyView):
                raise _refusal(value, operation_name(func))
        view = next((a for a in args if isinstance(a, ReadOnlyView)), None)
        plain_args, plain_kwargs = tree_map_only(ReadOnlyView, lambda v: v.dense, (args, kwargs))
        result = func(*plain_args, **plain_kwargs)
        aliases = any(r.alias_info is not None for r in func._schema.returns)  # noqa: SLF001
        if view is None or not aliases:
            return result
        return tree_map_only(torch.Tensor, lambda out: ReadOnlyView(out, view.scheme), result)


def written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return the arguments that an operation writes to, as its schema says; those of a list one by one.

    Args:
        func: An overload of an operation.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    found: list[Any] = []
    for place, argument in enumerate(func._schema.arguments):  # noqa: SLF001 - the only way to read a schema
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = kwargs.get(argument.name, args[place] if place < len(args) else None)
            found += value if isinstance(value, (list, tuple)) else [value]
    return found


def operation_name(func: Any) -> str:
    """Return the name of an operation without name space and overload, as users know it.

    Args:
        func: An overload of an operation.

    >>> operation_name(torch.ops.aten.mul_.Tensor)
    'mul_'
    """
    return func._schema.name.partition("::")[2]  # noqa: SLF001 - the only way to read a schema


def read_only_array(dense: torch.Tensor, *, force: bool) -> Any:
    """Return an array over the memory of a dense copy, marked read-only.

    Args:
        dense: A plain tensor.
        force: As for `torch.Tensor.numpy`.
    """
    array = dense.numpy(force=force)
    array.flags.writeable = False
    return array


def _refusal(view: ReadOnlyView, op: str) -> PackedWriteError:
    return PackedWriteError(
        f"{op} would write to a view of a packed {view.scheme} weight, which is a copy, so the write would be lost.",
        scheme=view.scheme,
        op=op,
        remedy="Write to the whole weight instead, for example `weight.copy_(dense)`.",
    )
