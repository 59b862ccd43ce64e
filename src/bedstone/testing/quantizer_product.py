"""The part of `check_quantizer` that looks at a scheme's product: values, gradients, what is kept, one graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from bedstone.kernels import policy

if TYPE_CHECKING:
    from bedstone.quant import QuantizedTensor

_CLOSE = {
    torch.float32: 1e-4,
    torch.bfloat16: 2e-2,
}  # of the largest result: float32 sums; half types rounded at either end


def check_product(packed: QuantizedTensor) -> None:
    """Check `F.linear` with a packed matrix against the dense weight.

    Args:
        packed: A matrix.

    Raises:
        AssertionError: Something differs; the message says what.
    """
    rows, columns = packed.shape
    for dtype in _CLOSE:
        for shape in ((3, columns), (columns,), (2, 0, columns)):
            _check_values(packed, torch.randn(shape).to(dtype), torch.randn(rows).to(dtype))
    _check_kept(packed, torch.randn(3, columns))
    _check_compiled(packed, torch.randn(3, columns))


def _check_values(packed: QuantizedTensor, x: torch.Tensor, bias: torch.Tensor) -> None:
    x, bias = x.requires_grad_(), bias.requires_grad_()
    out = functional.linear(x, packed, bias)
    what = f"`linear` of {tuple(x.shape)} in {x.dtype}"
    wanted = (*x.shape[:-1], packed.shape[0])
    if (tuple(out.shape), out.dtype) != (wanted, x.dtype):
        raise AssertionError(f"{what} returned {tuple(out.shape)} in {out.dtype} instead of {wanted} in {x.dtype}.")
    exact_x, exact_bias = (t.detach().double().requires_grad_() for t in (x, bias))
    exact = functional.linear(exact_x, packed.dequantize(torch.float32).double(), exact_bias)
    with policy("exact"):  # what a rounded gradient leaves out is the matter of `check_kernel`
        out.backward(torch.ones_like(out))
    exact.backward(torch.ones_like(exact))
    pairs = {
        "the product": (out, exact),
        "the gradient of x": (x.grad, exact_x.grad),
        "that of the bias": (bias.grad, exact_bias.grad),
    }
    for name, (found, expected) in pairs.items():
        if found is None or expected is None:
            raise AssertionError(f"{what}: {name} is missing.")
        if not expected.numel():
            continue
        largest = expected.detach().abs().max().clamp_min(1e-30)
        error = float((found.detach().double() - expected.detach()).abs().max() / largest)
        if not error <= _CLOSE[x.dtype]:
            raise AssertionError(f"{what}: {name} is off by {error:.3g} of its largest value from the dense weight's.")


def _check_kept(packed: QuantizedTensor, x: torch.Tensor) -> None:
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = functional.linear(x.requires_grad_(), packed)
    total, most = sum(kept.values()), packed.packed_bytes + x.nbytes + out.nbytes
    if total > most:
        raise AssertionError(
            f"`linear` keeps {total:,} bytes for the backward pass, where the parts take {packed.packed_bytes:,}. "
            "Keep the parts and unpack them again."
        )


def _check_compiled(packed: QuantizedTensor, x: torch.Tensor) -> None:
    def run(leaf: torch.Tensor) -> torch.Tensor:
        return functional.linear(leaf, packed)

    torch.compiler.reset()  # this function was compiled for other schemes before, and torch counts
    first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
    try:
        out = torch.compile(run, fullgraph=True, backend="aot_eager")(first)
        out.sum().backward()
    except Exception as error:
        raise AssertionError(f"`linear` does not compile into one graph: {type(error).__name__}: {error}") from error
    expected = run(second)
    expected.sum().backward()
    close = torch.allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert first.grad is not None
    assert second.grad is not None
    if not close or not torch.allclose(first.grad, second.grad, rtol=1e-4, atol=1e-5):
        raise AssertionError("`linear` gives other values when it is compiled.")
