"""The product with a packed weight: the dense product's values and derivatives, in every mode of torch, never keeping the dense weight."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import bedstone as bs
from bedstone.core.errors import ShapeMismatchError
from bedstone.quant import QuantizationError

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32 sums of 96 products in another order


@pytest.fixture
def dense(layer):
    """The same layer with the dense weight."""
    made = nn.Linear(96, 8)
    with torch.no_grad():
        made.weight.copy_(layer.weight.dequantize())
        made.bias.copy_(layer.bias)
    made.weight.requires_grad_(False)
    return made


@pytest.fixture
def fresh_compiler():
    """Each test compiles anew: all layers share one piece of code, and torch gives up after eight versions of it."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("shape", [(96,), (3, 96), (2, 3, 96), (0, 96), (2, 0, 96)])
def test_equals_the_dense_product_for_every_batch(layer, dense, shape):
    """A vector, a batch, batches of batches, nothing; forward and backward."""
    first = torch.randn(shape, requires_grad=True)
    second = first.detach().clone().requires_grad_()
    out, expected = layer(first), dense(second)
    out.square().sum().backward()
    expected.square().sum().backward()
    assert torch.allclose(out, expected, **CLOSE)
    assert torch.allclose(first.grad, second.grad, rtol=1e-4, atol=1e-5)
    assert torch.allclose(layer.bias.grad, dense.bias.grad, **CLOSE)
    assert layer.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_computes_in_the_dtype_of_the_input(layer, dense, dtype):
    """Whatever the dtype of the weight: half types are summed in float32 and rounded once, an error of 2^-8 of the result."""
    x = torch.randn(3, 96, dtype=dtype)
    out = layer(x)
    exact = functional.linear(x.double(), dense.weight.double(), dense.bias.double())
    assert out.dtype is dtype
    tolerance = {torch.bfloat16: 1e-2, torch.float16: 2e-3}.get(dtype, 1e-5)
    assert torch.allclose(out.double(), exact, rtol=tolerance, atol=tolerance)


def test_runs_without_a_bias_and_by_keyword(layer, dense, x):
    """`F.linear(input=..., weight=...)`."""
    assert torch.allclose(functional.linear(input=x, weight=layer.weight), x @ dense.weight.t(), **CLOSE)


def test_autocast_decides_as_it_does_for_a_dense_layer(layer, dense, x):
    """The half type for float32, and float64 left alone."""
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype is dense(x).dtype is torch.bfloat16
        assert layer(x.double()).dtype is torch.float64
        assert (x @ layer.weight.t()).dtype is torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert layer(x).dtype is torch.float32


def test_refuses_an_input_of_other_columns(layer):
    """With both shapes."""
    with pytest.raises(ShapeMismatchError) as caught:
        layer(torch.ones(3, 5))
    assert str(caught.value) == (
        "`input` has shape (3, 5), expected (3, 96). A weight of shape (8, 96) multiplies inputs of 96 columns."
    )
    assert (caught.value.actual, caught.value.expected) == ((3, 5), (3, 96))


def test_refuses_an_input_of_integers(layer):
    """Torch's dense product refuses them too; rounding the weight to integers would be worse."""
    with pytest.raises(QuantizationError) as caught:
        layer(torch.ones(3, 96, dtype=torch.int64))
    name = layer.weight.scheme.name
    assert str(caught.value) == (
        f"A packed {name} weight multiplies floating-point inputs, not torch.int64. Convert the input."
    )


def test_a_weight_of_one_dimension_is_a_dense_product(scheme, x):
    """`F.linear` with a vector is a dot product."""
    weight = scheme.quantize(torch.randn(96))
    assert torch.allclose(functional.linear(x, weight), x @ weight.dequantize(), **CLOSE)


# --- derivatives ---------------------------------------------------------------------------------


def test_keeps_the_packed_bytes_for_the_backward_pass_and_never_the_dense_weight(layer, x):
    """The whole point of QLoRA's memory."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x.requires_grad_())
    places = {part.untyped_storage().data_ptr() for part in layer.weight.parts.values()}
    assert kept
    assert {t.untyped_storage().data_ptr() for t in kept} <= places
    assert sum(t.nbytes for t in kept) <= layer.weight.packed_bytes


def test_the_second_derivative_is_that_of_the_dense_product(layer, dense, x):
    """Of a cube, so that it is not zero."""
    found = []
    for module in (layer, dense):
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(module(leaf).pow(3).sum(), leaf, create_graph=True)
        grad.square().sum().backward()
        found.append(leaf.grad)
    assert torch.allclose(*found, rtol=1e-4, atol=1e-3 * float(found[1].abs().max()))


def test_the_derivative_is_the_numerical_one(scheme):
    """Gradcheck and gradgradcheck in float64."""
    weight = scheme.quantize(torch.randn(2, 5))
    x, bias = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    arguments = (x.requires_grad_(), bias.requires_grad_())
    # The weight is unpacked in float64, so products are exact to 1e-15.
    assert torch.autograd.gradcheck(lambda x, b: functional.linear(x, weight, b), arguments)
    assert torch.autograd.gradgradcheck(lambda x, b: functional.linear(x, weight, b).pow(2), arguments)


TRANSFORMS = {
    "vmap": lambda f, x: torch.func.vmap(f)(x),
    "vmap over the last": lambda f, x: torch.func.vmap(f, in_dims=1)(x.t()),
    "grad": lambda f, x: torch.func.grad(lambda a: f(a).sum())(x),
    "grad a sample": lambda f, x: torch.func.vmap(torch.func.grad(lambda a: f(a).square().sum()))(x),
    "vjp": lambda f, x: torch.func.vjp(f, x)[1](torch.ones(3, 8))[0],
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
    "jacrev": lambda f, x: torch.func.jacrev(f)(x),
    "jacfwd": lambda f, x: torch.func.jacfwd(f)(x),
    "hessian": lambda f, x: torch.func.hessian(lambda a: f(a).pow(3).sum())(x),
    "reverse over forward": lambda f, x: torch.func.jacrev(torch.func.jacfwd(lambda a: f(a).pow(2).sum()))(x),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own forward mode
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_the_transforms_of_torch_func_give_what_they_give_for_a_dense_layer(layer, dense, x, transform):
    """A Hessian too: forward over reverse."""
    found, expected = transform(layer, x).detach(), transform(dense, x).detach()
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(expected.abs().max())))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_forward_mode_without_torch_func(layer, dense, x):
    """Dual numbers, in input and bias."""
    found = []
    for module in (layer, dense):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            bias = forward_ad.make_dual(module.bias.detach(), torch.ones(8))
            found.append(forward_ad.unpack_dual(functional.linear(dual, module.weight, bias)).tangent)
    assert torch.allclose(*found, **CLOSE)


def test_functional_call_takes_packed_weights(layer, scheme, x):
    """One layer, other weights."""
    other = scheme.quantize(torch.ones(8, 96))
    out = torch.func.functional_call(layer, {"weight": other, "bias": torch.zeros(8)}, (x,))
    assert torch.allclose(out, x @ other.dequantize().t(), **CLOSE)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint_recomputes_it(layer, dense, x, reentrant):
    """Both modes."""
    first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
    checkpoint(layer, first, use_reentrant=reentrant).square().sum().backward()
    dense(second).square().sum().backward()
    assert torch.allclose(first.grad, second.grad, rtol=1e-4, atol=1e-5)


# --- compiled and exported -----------------------------------------------------------------------


@pytest.mark.usefixtures("fresh_compiler")
def test_compiles_without_a_break_forward_and_backward(layer, x):
    """With `aot_eager`, so that it is torch's tracing that is tested, and without a warning about hashing."""
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = compiled(first)
        out.square().sum().backward()
    layer(second).square().sum().backward()
    assert torch.equal(out, layer(x))
    assert torch.equal(first.grad, second.grad)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of inductor itself
def test_compiles_with_inductor(x):
    """With generated code; a C++ compiler is needed."""
    model = nn.Sequential(nn.Linear(96, 8), nn.GELU(), nn.Linear(8, 4))
    bs.quantize(model, "nf4")
    leaf = x.clone().requires_grad_()
    out = torch.compile(model, fullgraph=True)(leaf)
    out.sum().backward()
    other = x.clone().requires_grad_()
    model(other).sum().backward()
    assert torch.allclose(out, model(x), **CLOSE)
    assert torch.allclose(leaf.grad, other.grad, **CLOSE)


def test_exports(layer, x):
    """The program holds the parts, and computes the same."""
    program = torch.export.export(layer, (x,))
    assert torch.equal(program.module()(x), layer(x))
