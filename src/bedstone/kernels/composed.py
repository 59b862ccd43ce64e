"""Operations whose implementations are made of differentiable torch operations: they run under torch's autograd as they are.

Packed products enter torch as operations of their own (`library.py`), since torch has no derivative of them. A norm or a rotation consists of
operations that torch knows, and a wall around them would hide them from the compiler, which fuses them better than anything that could stand
behind the wall. So such an operation is a plain function that asks the registry and calls what was chosen.

While `torch.compile` or `torch.export` traces, plain torch is traced: it is what the compiler fuses. A policy that requires an
implementation by name has that one traced instead, if it is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import KernelError
from bedstone.kernels.implementation import KernelImpl, KernelSpec
from bedstone.kernels.policies import required_implementation
from bedstone.kernels.registry import KernelOp, operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bedstone.kernels.registry import Sample


class ComposedOp(KernelOp):
    """An operation under torch's own autograd; arguments and behaviour as of `KernelOp`.

    Args:
        name: Of the operation.
        describe: Of the operation's arguments, their specification.
        implementations: Best first; the last one takes everything.
        samples: By name, functions that make arguments.
        differentiable: How many of its arguments, from the first one, every implementation with a derivative has one in.
    """

    def __init__(
        self,
        name: str,
        describe: Callable[..., KernelSpec],
        *implementations: KernelImpl,
        differentiable: int,
        samples: Mapping[str, Sample] | None = None,
    ) -> None:
        super().__init__(name, describe, *implementations, samples=samples, agreement="values")
        self.differentiable = differentiable

    def __call__(self, *args: Any) -> Any:
        """Run the chosen implementation, or have the compiler trace one.

        Raises:
            KernelError: It failed; nothing else was tried.
        """
        if torch.compiler.is_compiling():
            return self._traced().call(*args)
        return super().__call__(*args)

    def _traced(self) -> KernelImpl:
        required = required_implementation()  # the compiler notes that it depends on this
        for each in self._own:
            if each.name == required:
                return each
        if required:
            _refuse_added(self.name, required)
        return self.reference


def _refuse_added(op: str, implementation: str) -> None:
    if any(each.name == implementation for each in operations[op].implementations):
        message = f"{implementation!r} is of another package, and the compiler traces implementations of bedstone only."
        raise KernelError(message, op=op, implementation=implementation, remedy="Change the policy.")


# What `torch.compiler.assume_constant_result` does, which would load the compiler: it runs now and is not traced.
setattr(_refuse_added, "_dynamo_marked_constant", True)  # noqa: B010


def spec_of(
    first: torch.Tensor, inputs: int, rows: int, columns: int, options: str = "", others: Iterable[Any] = ()
) -> KernelSpec:
    """Return the specification of a call.

    Args:
        first: The argument that says device, dtype and strides.
        inputs: Rows of it.
        rows: Rows of what it meets; 1 for a vector.
        columns: Columns of both.
        options: What else is asked.
        others: Arguments that a gradient may be asked of, besides the first.
    """
    grad = False
    if torch.is_grad_enabled():
        grad = first.requires_grad or any(isinstance(each, torch.Tensor) and each.requires_grad for each in others)
    device = "cpu" if first.is_cpu else first.device.type  # the second way takes five times as long
    return KernelSpec(device, first.dtype, inputs, rows, columns, first.is_contiguous(), grad, options)
