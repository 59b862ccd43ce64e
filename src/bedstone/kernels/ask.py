"""Questions to the registry in the words of users: `nf4_linear` for `linear_4bit`, a packed weight for its parts.

    a user says                     the operation
    nf4_linear, fp4_linear          linear_4bit
    int8_linear, fp8_linear         linear_8bit
    ternary_linear                  linear_ternary

and so for `_quantize`, `_dequantize` and `_input_grad`. The operations' own names are known too.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.device import device_report
from bedstone.core.errors import DimensionMismatchError, UnknownNameError
from bedstone.kernels.implementation import KernelSpec
from bedstone.kernels.pins import spec_of
from bedstone.kernels.registry import operations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bedstone.kernels.choice import KernelChoice
    from bedstone.kernels.registry import KernelOp

FORMATS = {"nf4": "4bit", "fp4": "4bit", "int8": "8bit", "fp8": "8bit", "ternary": "ternary"}
"""The format that a scheme's weights are kept in."""
FOLDERS = ("fourbit", "eightbit", "ternary", "cross_entropy", "norms", "gated", "rotary", "sdpa")


def operation(name: str) -> KernelOp:
    """Return an operation.

    Args:
        name: Its own, or what users call it.

    Raises:
        UnknownNameError: There is none of that name.

    >>> operation("nf4_linear").name
    'linear_4bit'
    """
    for folder in FOLDERS:
        importlib.import_module(f"bedstone.kernels.{folder}")
    scheme, _, verb = name.partition("_")
    own = f"{verb}_{FORMATS[scheme]}" if scheme in FORMATS else name
    own = f"linear_{FORMATS[scheme]}_input_grad" if scheme in FORMATS and verb == "input_grad" else own
    if own not in operations:
        raise UnknownNameError("operation", name, {*operations, *(f"{each}_linear" for each in FORMATS)})
    return operations[own]


def explain(
    op: str,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    shape: tuple[int, ...] = (1, 4096, 4096),
    grad: bool = False,
    options: str = "",
) -> KernelChoice:
    """Return what would be chosen and why not the others; prints as a few lines. Nothing runs.

    Args:
        op: Such as `nf4_linear` or `linear_4bit`.
        device: Type of a device; it need not be here.
        dtype: Of the input, or of the dense result.
        shape: `(M, N, K)` of a product, `(N, K)` where only a weight goes in; N is 1 where a vector goes in or nothing.
        grad: Whether a derivative will be asked of the implementation.
        options: What else is asked, in words of the operation in alphabetical order, such as `causal softcap`.

    Raises:
        UnknownNameError: The operation.
        DimensionMismatchError: The shape has neither two nor three numbers.

    >>> explain("nf4_linear", device="mps", shape=(1, 64, 64)).name
    'reference'
    """
    if len(shape) not in (2, 3):
        raise DimensionMismatchError(expected="2 or 3", actual=len(shape), argument="shape")
    inputs, rows, columns = (0, *shape)[-3:]
    options = options or _implied_options(op)
    choice = operation(op).choice(KernelSpec(device, dtype, inputs, rows, columns, True, grad, options))
    return replace(choice, absent=_absent(device))


def select(op: str, *args: Any) -> KernelChoice:
    """Return what is chosen for arguments, and why not the others. Nothing runs.

    Args:
        op: Such as `nf4_linear` or `linear_4bit`.
        args: Of `nf4_linear` an input and a packed weight, of `nf4_dequantize` a packed weight, of `nf4_quantize` a weight; or the
            arguments of the operation itself.

    Raises:
        UnknownNameError: The operation.
        KernelError: The policy requires an implementation that cannot.

    >>> import bedstone as bs
    >>> select("nf4_linear", torch.ones(2, 64), bs.quantize(torch.ones(8, 64), "nf4")).spec.inputs
    2
    """
    chosen = operation(op)
    if not 1 <= len(args) <= 2 or not all(isinstance(each, torch.Tensor) for each in args):  # noqa: PLR2004 - input and weight
        return chosen.choice(chosen.describe(*args))
    first, weight = args[0], args[-1]
    inputs = 0 if first is weight else math.prod(first.shape[:-1])
    columns = weight.shape[-1] if weight.ndim else 1
    rows = weight.numel() // max(columns, 1)
    spec = KernelSpec(first.device.type, first.dtype, inputs, rows, columns, options=_implied_options(op))
    return chosen.choice(spec)


def _implied_options(op: str) -> str:
    """What the name that a user gives says besides the operation: products of float8 are those of eight bits."""
    return "float8" if op in ("fp8_linear", "fp8_input_grad") else ""


def why_not_again(record: Mapping[str, Any]) -> str:
    """Return why a choice of an earlier run cannot be made here, or nothing.

    Args:
        record: One of `chosen_kernels`.

    >>> from bedstone.kernels.pins import as_record
    >>> why_not_again({"op": "linear_4bit", "implementation": "acme", **as_record(KernelSpec("cpu", torch.float32, 1, 8, 8))})
    'there is none of that name'
    """
    try:
        return operation(record["op"]).why_not(record["implementation"], spec_of(record))
    except UnknownNameError:
        return "there is no such operation"


def _absent(device: str) -> str:
    """Why this machine has no such device, in the words of the device report; empty where it has one."""
    row = next((row for row in device_report().rows if row.backend == device), None)
    return "" if row is None or row.verdict == "usable" else row.reason
