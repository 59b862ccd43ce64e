"""The result of a product belongs to its caller, who may write into it."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (40,)])
def test_a_product_is_written_to_in_place(pack, dtype, leading):
    """Forward and gradient are those of the sum; autograd refuses this for a view that an operation returns."""
    weight = pack(torch.randn(8, 64, generator=torch.Generator().manual_seed(1)))
    x = torch.ones(*leading, 64, dtype=dtype, requires_grad=True)
    expected = weight.linear(x, *weight.arguments, None) + 1
    (wanted,) = torch.autograd.grad(expected.sum(), x)
    result = weight.linear(x, *weight.arguments, None)
    result += 1
    (found,) = torch.autograd.grad(result.sum(), x)
    assert torch.equal(result, expected)
    assert torch.equal(found, wanted)
