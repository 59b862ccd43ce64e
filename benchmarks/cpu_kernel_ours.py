"""Our side of `cpu_kernels.py`: every implementation that the registry has of an operation, and nothing that it does not say.

An implementation is bound to its specification by name, so that what is timed is what a policy would run, error handling included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from cpu_kernel_clock import Contestant, left_out, peak_growth, relative_error, rotated

from bedstone import kernels
from bedstone.core.memory import free_workspaces
from bedstone.kernels.eightbit import packings as eightbit
from bedstone.kernels.fourbit import packings as fourbit
from bedstone.kernels.native.calls import placed
from bedstone.kernels.native.library import DTYPES, library
from bedstone.kernels.ternary import packings as ternary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bedstone.kernels import KernelImpl, KernelOp, KernelSpec

PACKINGS = {
    "nf4": fourbit.PACKINGS["nf4"],
    "fp4": fourbit.PACKINGS["fp4"],
    "int8": eightbit.PACKINGS["int8 in blocks"],
    "fp8": eightbit.PACKINGS["fp8"],
    "ternary": ternary.PACKINGS["ternary"],
}
SAME_WEIGHT = "the exact product with the same dequantized weight"


class Packed:
    """A weight in one of our formats.

    Attributes:
        arguments: Of it, as the operations take them.
        dense: Its values.
        nbytes: Of what a product reads.
    """

    def __init__(self, scheme: str, weight: torch.Tensor) -> None:
        self.scheme = scheme
        spec = kernels.KernelSpec("cpu", torch.float32, 0, *weight.shape)
        options, packed = PACKINGS[scheme]
        self.quantize_arguments = (weight, *options(spec))
        self.arguments = packed(weight, spec)
        self.dense: torch.Tensor = kernels.operation(f"{scheme}_dequantize")(*self.arguments, torch.float32)
        self.nbytes = sum(each.nbytes for each in self.arguments if isinstance(each, torch.Tensor))

    def in_turn(self, inputs: int) -> Callable[[], tuple[Any, ...]]:
        """Return what gives the arguments, each time in other memory where there are few rows of x."""
        places = [i for i, each in enumerate(self.arguments) if isinstance(each, torch.Tensor)]
        tensors = rotated(tuple(self.arguments[i] for i in places), inputs)

        def following() -> tuple[Any, ...]:
            arguments = list(self.arguments)
            for place, tensor in zip(places, tensors(), strict=True):
                arguments[place] = tensor
            return tuple(arguments)

        return following


def quantizing(packed: Packed) -> dict[str, Contestant]:
    """Return who packs a weight; the error is that of what comes out."""
    op, arguments = kernels.operation(f"{packed.scheme}_quantize"), packed.quantize_arguments
    error = relative_error(packed.dense, arguments[0])
    return {
        _name(packed, each): Contestant(
            lambda call=call: call(*arguments), 0, error, "the weight", each.numerics, each.workspace(*arguments)
        )
        for each, call in _bound(op, op.describe(*arguments))
    }


def dequantizing(packed: Packed, dtype: torch.dtype) -> dict[str, Contestant]:
    """Return who unpacks a weight into memory of its own."""
    op, arguments = kernels.operation(f"{packed.scheme}_dequantize"), (*packed.arguments, dtype)
    return {
        _name(packed, each): Contestant(
            lambda call=call: call(*arguments),
            *(0, relative_error(call(*arguments), packed.dense), "the float32 values", each.numerics),
        )
        for each, call in _bound(op, op.describe(*arguments))
    }


def into_buffer(packed: Packed, out: torch.Tensor) -> dict[str, Contestant]:
    """Return the compiled kernel that unpacks a weight into memory that is there already, if there is a library."""
    found = library()
    if found is None:
        return {}
    threads, end = torch.get_num_threads(), (out.data_ptr(), DTYPES[out.dtype])
    if packed.scheme in ("nf4", "fp4"):
        from bedstone.kernels import layouts

        codes, absmax, *_, block, code = packed.arguments
        table = layouts.code_table(code, torch.device("cpu"))
        arguments = (codes.data_ptr(), absmax.data_ptr(), table.data_ptr(), block, 0, out.numel(), *end, threads)
        function = found.bs_dequantize_4bit
    elif packed.scheme == "ternary":
        codes, scale, shape, block = packed.arguments
        arguments = (codes.data_ptr(), scale.data_ptr(), *placed(scale), max(block, 1), *shape, *end, threads)
        function = found.bs_dequantize_ternary
    else:
        from bedstone.kernels.eightbit.native import KINDS

        codes, absmax, block = packed.arguments
        kind = KINDS[codes.dtype]
        arguments = (codes.data_ptr(), kind, absmax.data_ptr(), *placed(absmax), block, *codes.shape, *end, threads)
        function = found.bs_dequantize_8bit
    out.zero_()
    function(*arguments)
    error = relative_error(out, packed.dense)

    def call(kept: object = (packed, out)) -> None:  # the kernel sees addresses: somebody must keep what lies there
        del kept
        function(*arguments)

    return {f"bedstone {packed.scheme} native kernel": Contestant(call, 0, error, "the float32 values", "exact")}


def multiplying(packed: Packed, x: torch.Tensor) -> dict[str, Contestant]:
    """Return who multiplies x by the transposed weight."""
    op, following = kernels.operation(f"{packed.scheme}_linear"), packed.in_turn(len(x))
    spec = op.describe(x, *packed.arguments, None)
    exact = x.double() @ packed.dense.double().t()
    found = {}
    for each, call in _bound(op, spec):
        arguments = (x, *packed.arguments, None)
        error = relative_error(call(*arguments), exact)
        found[_name(packed, each)] = Contestant(
            lambda call=call: call(x, *following(), None),
            *(packed.nbytes, error, SAME_WEIGHT, each.numerics, each.workspace(*arguments)),
        )
    return found


def differentiating(packed: Packed, grad: torch.Tensor) -> dict[str, Contestant]:
    """Return who multiplies a gradient by the weight; `extra` has the memory that it took besides the result."""
    op = kernels.operation(f"{packed.scheme}_input_grad")
    arguments = (grad, *packed.arguments)
    exact = grad.double() @ packed.dense.double()
    found = {}
    for each, call in _bound(op, op.describe(*arguments)):
        error = relative_error(call(*arguments), exact)
        free_workspaces()  # what is kept from call to call counts
        grown = peak_growth(lambda call=call: call(*arguments))
        found[_name(packed, each)] = Contestant(
            lambda call=call: call(*arguments),
            *(0, error, SAME_WEIGHT, each.numerics, each.workspace(*arguments)),
            {"peak_bytes": grown and max(grown - 4 * grad.shape[0] * packed.dense.shape[1], 0)},
        )
    return found


def _bound(op: KernelOp, spec: KernelSpec) -> Iterator[tuple[KernelImpl, Callable[..., Any]]]:
    for each in op.implementations:
        if reason := each.cannot(spec):
            left_out[f"{op.name}: {each.name}"] = reason
            continue
        with kernels.policy(f"require:{each.name}"):
            call = op.bind(spec)
        yield each, call


def _name(packed: Packed, implementation: KernelImpl) -> str:
    return f"bedstone {packed.scheme} {implementation.name}"
