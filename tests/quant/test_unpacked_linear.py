"""A scheme of two methods gets a product with all derivatives, which keeps the parts and not the dense weight."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional

from bedstone.quant import Scheme


@dataclass(frozen=True)
class Halves(Scheme):
    """Weights in float16, in plain torch; only `pack` and `unpack`."""

    name = "halves"

    def pack(self, weight):
        return {"half": weight.to(torch.float16)}

    def unpack(self, parts, shape, dtype):
        return parts["half"].to(dtype).view(shape)


@pytest.fixture
def weight():
    return Halves().quantize(torch.randn(4, 6))


def test_equals_the_dense_product_to_second_order(weight):
    """Gradcheck in float64, with and without a bias."""
    x, bias = torch.randn(3, 6, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    assert torch.allclose(functional.linear(x, weight, bias), functional.linear(x, weight.dequantize().double(), bias))
    leaves = (x.requires_grad_(), bias.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, b: functional.linear(x, weight, b), leaves)
    assert torch.autograd.gradgradcheck(lambda x: functional.linear(x, weight).pow(2), leaves[:1])


def test_keeps_the_parts_only(weight):
    """Half the bytes of the dense weight here."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        functional.linear(torch.randn(3, 6, requires_grad=True), weight)
    assert [t.dtype for t in kept] == [torch.float16]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_works_inside_the_transforms_of_torch_func(weight):
    """Batches, and derivatives in both modes."""
    x = torch.randn(3, 6)

    def through(w):
        return lambda a: functional.linear(a, w)

    dense = weight.dequantize()
    for transform in (torch.func.vmap, torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(transform(through(weight))(x), transform(through(dense))(x), atol=1e-6)

    def cube(w):
        return lambda a: functional.linear(a, w).pow(3).sum()

    assert torch.allclose(torch.func.hessian(cube(weight))(x), torch.func.hessian(cube(dense))(x), atol=1e-4)


def test_compiles_without_a_break(weight):
    """Though the scheme knows nothing of the compiler."""
    torch.compiler.reset()
    compiled = torch.compile(lambda a: functional.linear(a, weight), fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 6, requires_grad=True)
    out = compiled(x)
    out.sum().backward()
    assert torch.equal(out, functional.linear(x, weight))
    assert torch.allclose(x.grad, weight.dequantize().sum(0).expand(3, 6))


def test_cannot_be_cut_into_rows_unless_it_says_how(weight):
    """So a slice is a view that refuses writes."""
    with pytest.raises(ValueError, match=r"halves cannot be cut into rows, here 0 to 2\. Keep the weight whole"):
        weight.scheme.slice_rows(weight.parts, (4, 6), 0, 2)
    with pytest.raises(ValueError, match="Write to the whole weight instead"):
        weight[:2].zero_()
