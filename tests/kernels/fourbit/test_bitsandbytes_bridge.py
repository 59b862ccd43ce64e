"""What is handed to bitsandbytes on CUDA is what its operations take: called on a CPU, where it has the same operations."""

from __future__ import annotations

import pytest
import torch

from bedstone.kernels import KernelSpec, operation
from bedstone.kernels.samples import sample

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


@pytest.fixture(autouse=True)
def _no_compiler():
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("packing", ["nf4", "nf4, double", "fp4"])
@pytest.mark.parametrize("name", ["dequantize_4bit", "linear_4bit", "linear_4bit_input_grad"])
@pytest.mark.parametrize("inputs", [1, 5])
def test_gives_what_plain_torch_gives(name, packing, dtype, inputs):
    """Codes, plain and nested scales, shape, bias: a wrong order would not pass."""
    op = operation(name)
    (made,) = [each for each in op.implementations if each.name == "bitsandbytes"]
    arguments = sample(op, KernelSpec("cpu", dtype, inputs, 8, 128), packing)
    found, expected = made.call(*arguments), op.reference.call(*arguments)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    limit = 1e-5 if dtype is torch.float32 else 0.06  # sums of 128 products, rounded in another order
    torch.testing.assert_close(found.float(), expected.float(), rtol=limit, atol=limit)
    assert 0 < made.workspace(*arguments) < 2**16


def test_says_what_it_leaves_to_others():
    """Empty inputs, and columns that it is slow with."""
    (made,) = [each for each in operation("linear_4bit").implementations if each.name == "bitsandbytes"]
    assert made.refuses(KernelSpec("cuda", torch.float32, 0, 8, 64)) == "it takes no empty inputs or weights"
    assert made.refuses(KernelSpec("cuda", torch.float32, 1, 8, 65)) == "it is slow where columns are no multiple of 64"
    assert made.refuses(KernelSpec("cpu", torch.float32, 1, 8, 64)) == "it runs on cuda, not on cpu"
