"""The conformance kit of an implementation of an operation: it computes what plain torch computes, or says why it cannot.

Odd and empty sizes, inputs with gaps between their elements, values that are not finite, every floating dtype, each way to pack a
weight. How near it must come is said by its numerics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels import KernelExtension, KernelImpl, KernelSpec, operation
from bedstone.kernels.samples import sample
from bedstone.testing.claims import listed, require, same_bits, told
from bedstone.testing.kernel_values import check_in_torch, check_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bedstone.kernels import KernelOp

_SHAPES = ((1, 1, 2), (3, 5, 96), (1, 64, 576), (17, 33, 130), (2, 7, 65), (0, 4, 64), (300, 64, 256))
_SMALL = KernelSpec("cpu", torch.float32, *_SHAPES[1])
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_NUMERICS = {"exact": 2e-6, "rounded": 4e-4, "approximate": 5e-2}
_ROUNDING = {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 3 * 2**-8, torch.float16: 2**-10}


def check_kernel(extension: KernelExtension, *, device: str = "cpu") -> int:
    """Check that an implementation keeps its contract; say which part it breaks.

    Checked, for every specification that it does not refuse: that `unfit` gives text and `workspace` a number of bytes; that
    quantized and dequantized values are plain torch's to the bit, products within what its numerics promise of the float64 product with
    the same dequantized weight, and what other operations give, and their gradients, of plain torch in float64; with inputs whose elements lie
    apart or begin in the midst of memory, with NaN and infinities, which must reach what they reach in plain torch; that it changes no argument;
    and, if it is called deterministic, that it gives the same bits again. An implementation that the operation has already is also shown to
    `torch.library.opcheck` or to the compiler.

    Args:
        extension: The implementation and its operation. It need not be registered.
        device: Where to try it.

    Returns:
        How many specifications it took.

    Raises:
        AssertionError: The contract is broken; the message says where. Also if it refuses every specification.

    >>> from bedstone.kernels import operation
    >>> check_kernel(KernelExtension("linear_4bit", operation("linear_4bit").implementations[-1])) > 20
    True
    """
    op, made = operation(extension.op), extension.implementation
    taken = 0
    for asked, packing in _cases(op, device):
        arguments = sample(op, asked, packing)
        spec = op.describe(*arguments)
        reason = made.cannot(spec)
        require(isinstance(reason, str), f"`unfit` gave {reason!r} for {spec}; it must give text, empty if it can.")
        if reason:
            continue
        taken += 1
        where = f"{op.name}, {packing}, {spec}"
        _check_result(made, op, arguments, where)
        if op.agreement == "values":
            check_values(made, op, arguments, where)
            if asked == _SMALL._replace(device=device) and made in op.implementations:
                check_in_torch(made, op, arguments)
        elif op.agreement == "product" and spec.inputs:
            _check_strides(made, arguments, where)
            _check_not_finite(made, op.reference, arguments, where)
    require(taken > 0, f"{made.name} refused every specification of {op.name} on {device}.")
    return taken


def _cases(op: KernelOp, device: str) -> Iterator[tuple[KernelSpec, str]]:
    takes_inputs = op.agreement != "bits"
    for packing in op.samples:
        for dtype in _DTYPES:
            for inputs, rows, columns in _SHAPES:
                yield KernelSpec(device, dtype, inputs if takes_inputs else 0, rows, columns), packing


def _check_result(made: KernelImpl, op: KernelOp, arguments: tuple[Any, ...], where: str) -> None:
    needed = made.workspace(*arguments)
    require(isinstance(needed, int) and needed >= 0, f"`workspace` gave {needed!r}; it must give bytes. ({where})")
    before = [value.clone() for value in arguments if isinstance(value, torch.Tensor)]
    found, expected = listed(made.call(*arguments)), listed(op.reference.call(*arguments))
    for value, kept in zip((v for v in arguments if isinstance(v, torch.Tensor)), before, strict=True):
        require(same_bits(value, kept), f"It changed an argument. ({where})")
    require(len(found) == len(expected), f"It gave {len(found)} tensors, not {len(expected)}. ({where})")
    for ours, theirs in zip(found, expected, strict=True):
        alike = (ours.shape, ours.dtype, ours.device) == (theirs.shape, theirs.dtype, theirs.device)
        require(alike, f"It gave {told(ours)}, not {told(theirs)}. ({where})")
        if op.agreement == "product":
            _check_near(made, ours, arguments, op.name, where)
        elif op.agreement == "bits":
            require(same_bits(ours, theirs), f"Its bits are not those of plain torch. ({where})")
    if made.deterministic:
        again = listed(made.call(*arguments))
        require(
            all(map(same_bits, found, again)),
            f"Called again it gave other bits, but says it is deterministic. ({where})",
        )


def _check_near(made: KernelImpl, found: torch.Tensor, arguments: tuple[Any, ...], op: str, where: str) -> None:
    x = arguments[0].double()
    back = op.endswith("input_grad")
    dense = _dense(op, arguments).double()
    dense, bias = (dense.T, None) if back else (dense, arguments[-1])
    expected, size = x @ dense.T, x.abs() @ dense.T.abs()
    if bias is not None:
        expected, size = expected + bias.double(), size + bias.double().abs()
    limit = (_NUMERICS[made.numerics] + _ROUNDING[found.dtype]) * size + 1e-30
    worst = float(((found.double() - expected).abs() / limit).max()) if found.numel() else 0.0
    require(worst <= 1, f"Its error is {worst:.3g} times what `{made.numerics}` allows. ({where})")


def _dense(op: str, arguments: tuple[Any, ...]) -> torch.Tensor:
    weight = arguments[1:] if op.endswith("input_grad") else arguments[1:-1]
    verb = f"dequantize_{op.removeprefix('linear_').removesuffix('_input_grad')}"
    return operation(verb).reference.call(*weight, torch.float32)


def _check_strides(made: KernelImpl, arguments: tuple[Any, ...], where: str) -> None:
    x, *rest = arguments
    apart = torch.empty(x.shape[0], 2 * x.shape[1], dtype=x.dtype, device=x.device)[:, ::2].copy_(x)
    found, expected = made.call(apart, *rest), made.call(x, *rest)
    near = torch.allclose(found.double(), expected.double(), rtol=1e-2, atol=1e-2, equal_nan=True)
    require(near, f"Inputs whose elements lie apart give something else. ({where})")


def _check_not_finite(made: KernelImpl, reference: KernelImpl, arguments: tuple[Any, ...], where: str) -> None:
    for bad in (float("nan"), float("inf")):
        x, *rest = arguments
        x = x.clone()
        x[-1, -1] = bad
        found, expected = made.call(x, *rest), reference.call(x, *rest)
        same = torch.equal(found.isfinite(), expected.isfinite())
        require(same, f"{bad} in the input does not reach what it reaches in plain torch. ({where})")
