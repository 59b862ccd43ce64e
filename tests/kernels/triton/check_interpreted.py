"""The kernels compute what plain torch computes. `test_interpreted.py` runs this file in a process of its own, in Triton's interpreter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from bedstone.kernels import KernelExtension, KernelSpec, operation
from bedstone.kernels.samples import sample
from bedstone.testing import check_kernel

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="compiled kernels need a GPU")

PACKED = ("4bit", "8bit", "ternary")
OPERATIONS = [f"{verb}_{name}" for name in PACKED for verb in ("dequantize", "linear")]
OPERATIONS += [f"linear_{name}_input_grad" for name in PACKED]

SMALL = ("linear_8bit_input_grad", "linear_ternary_input_grad")
"""Of which small shapes must do: the kernel is that of `linear_4bit_input_grad`, and the codes are read by the others."""


@pytest.fixture(autouse=True, scope="module")
def _interpreter():
    """bfloat16 as on GPUs, and tiles so small that little shapes have several."""
    sys.path.insert(0, str(Path(__file__).parent))
    from mended_interpreter import mend

    from bedstone.kernels.cross_entropy import triton_cross_entropy
    from bedstone.kernels.triton import triton_dense, triton_products

    mend()
    triton_dense.BLOCK = 128
    triton_cross_entropy.BLOCK = 32
    triton_products.FEW_TILE.update(ROWS=8, PLACES=32)
    triton_products.TILE.update(INPUTS=16, ROWS=32, PLACES=64)


def in_interpreter(op: str):
    """The Triton implementation, which takes CPU tensors here, of shapes that the interpreter ends within seconds: odd ones, with several tiles."""
    (made,) = [each for each in operation(op).implementations if each.name == "triton"]

    def unfit(spec):
        flat = spec.rows * spec.columns  # 4-bit weights are told as one column
        small = flat == 7 * 65 or (not spec.inputs and flat == 4 * 64)
        return "" if small or (spec.inputs < 18 and flat == 33 * 130 and op not in SMALL) else "not here"

    return made.but(devices=(), capability=None, unfit=unfit, deterministic=False)


@pytest.mark.parametrize("op", OPERATIONS)
def test_weights(op):
    """The whole kit, in every packing: bits of dense weights, products and their gradients beside float64, gaps, NaN, infinities."""
    assert check_kernel(KernelExtension(op, in_interpreter(op).but(dtypes=(torch.float32,)))) >= 6


@pytest.mark.parametrize("op", ["dequantize_4bit", "linear_4bit"])
def test_weights_in_bfloat16(op):
    """Weights are rounded before they are multiplied, sums at the end."""
    assert check_kernel(KernelExtension(op, in_interpreter(op).but(dtypes=(torch.bfloat16,)))) >= 9


def test_weights_whose_scales_are_extreme():
    """Where 8-bit scales leave the normal numbers, bit for bit, and NaN stays."""
    codes = torch.arange(-128, 128).to(torch.int8).repeat(6, 1)
    absmax = torch.tensor([1e-40, 3.4e38, float("inf"), float("nan"), 0.0, 2.0**-101]).view(-1, 1)
    for bits in (codes, codes.view(torch.float8_e4m3fn), codes.view(torch.float8_e5m2)):
        op = operation("dequantize_8bit")
        found = in_interpreter(op.name).call(bits, absmax, 256, torch.float32)
        expected = op.reference.call(bits, absmax, 256, torch.float32)
        assert torch.equal(found.isnan(), expected.isnan())
        assert torch.equal(found.nan_to_num().view(torch.int32), expected.nan_to_num().view(torch.int32))


def test_weights_give_the_same_bits_again():
    """In halves too."""
    op = operation("linear_ternary")
    arguments = sample(op, KernelSpec("cpu", torch.float16, 5, 20, 130))
    call = in_interpreter(op.name).call
    found = call(*arguments)
    assert torch.equal(found, call(*arguments))
    torch.testing.assert_close(found, op.reference.call(*arguments), rtol=2e-3, atol=2e-3)


# --- training ------------------------------------------------------------------------------------

LOSSES = {
    "plain": {},
    "bias, weights": {"bias": True, "weights": True},
    "everything": {"bias": True, "weights": True, "smoothing": 0.1, "z_loss": 1e-2, "softcap": 3.0},
    "no gradient": {"of_hidden": False, "of_weight": False},
}


def loss_arguments(
    dtype, *, bias=False, weights=False, of_hidden=True, of_weight=True, smoothing=0.0, z_loss=0.0, softcap=0.0
):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    labels = torch.tensor([0, 99, -100, 5, 6, -100, 50])
    tensors = (normal(7, 16), normal(100, 16), normal(100) if bias else None, labels)
    token_weights = torch.rand(7, generator=generator) if weights else None
    return (*tensors, token_weights, -100, smoothing, z_loss, softcap, of_hidden, of_weight)


def losses_in_float64(hidden, weight, bias, labels, scale, ignore, smoothing, z_loss, softcap, of_hidden, of_weight):
    """The same by torch's own cross-entropy and autograd."""
    leaves = [each.double().requires_grad_() for each in (hidden, weight, bias) if each is not None]
    z = F.linear(*leaves)
    z = softcap * torch.tanh(z / softcap) if softcap else z
    losses = F.cross_entropy(z, labels, ignore_index=ignore, label_smoothing=smoothing, reduction="none")
    losses = losses + z_loss * z.logsumexp(1).square() * (labels != ignore)
    losses = losses if scale is None else losses * scale
    return losses, *torch.autograd.grad(losses.sum(), leaves)


@pytest.mark.parametrize("implementation", ["triton", "liger"])
@pytest.mark.parametrize("case", LOSSES)
def test_losses_and_gradients(case, implementation):
    """Beside float64; Liger's too, whose interpreted kernel is the one that GPUs run."""
    if implementation == "liger":
        pytest.importorskip("liger_kernel", reason="Liger is not installed")
    options = LOSSES[case] | (
        {"softcap": 0.0} if implementation == "liger" else {}
    )  # which its kernel cannot be interpreted with
    arguments = loss_arguments(torch.float32, **options)
    (made,) = [e for e in operation("linear_cross_entropy").implementations if e.name == implementation]
    found, expected = made.call(*arguments), losses_in_float64(*arguments)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found[1:], expected[1:], strict=False):
        if not arguments[-1]:
            assert ours.numel() == 0
        else:
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


def test_losses_of_halves_and_of_strange_rows():
    """bfloat16 as plain torch; no rows; a logit of -inf."""
    op, made = operation("linear_cross_entropy"), in_interpreter("linear_cross_entropy")
    arguments = loss_arguments(torch.bfloat16, softcap=3.0)
    none = (*arguments[:3], torch.full((7,), -100), *arguments[4:])
    infinite = loss_arguments(torch.float32, bias=True)
    infinite[2][:40] = -float("inf")
    infinite[3][0] = 70
    for each in (arguments, none, infinite):
        for ours, theirs in zip(made.call(*each), op.reference.call(*each), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("rounding", ["llama", "gemma"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_losses_aside_rms_norm_forward_and_backward(dtype, rounding):
    """Output and gradients are plain torch's; more rows than programs, so that parts of the weight's gradient are summed."""
    from bedstone.kernels.norms import triton_rms_norm

    op, made, offset = operation("rms_norm"), in_interpreter("rms_norm"), float(rounding == "gemma")
    triton_rms_norm.PROGRAMS = 4
    generator = torch.Generator().manual_seed(0)
    x, weight, above = (torch.randn(shape, generator=generator).to(dtype) for shape in ((3, 5, 33), (33,), (3, 5, 33)))
    results = []
    for each in (made, op.reference):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        out = each.call(*leaves, 1e-6, offset, rounding)
        results.append((out, *torch.autograd.grad(out, leaves, above)))
    for ours, theirs in zip(*results, strict=True):
        limit = 1e-5 if dtype is torch.float32 else 2**-6  # torch sums the weight's gradient in bfloat16
        torch.testing.assert_close(ours, theirs, rtol=limit, atol=limit)
    assert made.call(x[:0], weight, 1e-6, offset, rounding).shape == (0, 5, 33)
