"""The norms are those of transformers' models to the bit, and their gradients those of the formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from bedstone.core.errors import InvalidConfigError, ShapeMismatchError
from bedstone.kernels import explain, layer_norm, operation, policy, rms_norm

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def filled(module, dtype):
    """A norm of transformers with weights that are not all alike."""
    module.weight.data.copy_(torch.randn(module.weight.shape))
    return module.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 7, 96), (0, 96), (1, 96)], ids=str)
def test_is_the_norm_of_llama_to_the_bit(dtype, shape):
    """Its rounding before the product with the weight too; and the gradients."""
    module = filled(LlamaRMSNorm(96, 1e-5), dtype)
    x = torch.randn(shape).to(dtype).requires_grad_()
    ours, theirs = rms_norm(x, module.weight, 1e-5), module(x)
    assert ours.dtype is theirs.dtype
    assert torch.equal(ours, theirs)
    above = torch.randn(shape).to(dtype)
    wanted = [x, module.weight]
    for a, b in zip(torch.autograd.grad(ours, wanted, above), torch.autograd.grad(theirs, wanted, above), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_is_the_norm_of_gemma_to_the_bit(dtype):
    """Weights as their distance from 1, one rounding at the end."""
    module = filled(GemmaRMSNorm(96, 1e-6), dtype)
    x = torch.randn(5, 96).to(dtype).requires_grad_()
    ours, theirs = rms_norm(x, module.weight, offset=1.0, rounding="gemma"), module(x)
    assert torch.equal(ours, theirs)
    wanted = [x, module.weight]
    above = torch.randn(5, 96).to(dtype)
    for a, b in zip(torch.autograd.grad(ours, wanted, above), torch.autograd.grad(theirs, wanted, above), strict=True):
        torch.testing.assert_close(a, b)


def test_the_orders_of_rounding_differ_in_halves_alone():
    """Otherwise the option would be for nothing."""
    x, weight = torch.randn(64, 96), torch.randn(96)
    assert torch.equal(rms_norm(x, weight), rms_norm(x, weight, rounding="gemma"))
    x, weight = x.bfloat16(), weight.bfloat16()
    assert not torch.equal(rms_norm(x, weight), rms_norm(x, weight, rounding="gemma"))


def test_a_weight_of_another_dtype_counts_as_in_llama():
    """A float32 weight makes a float32 result of half an input."""
    module = filled(LlamaRMSNorm(32), torch.float32)
    x = torch.randn(4, 32).bfloat16()
    assert torch.equal(rms_norm(x, module.weight), module(x))
    assert rms_norm(x, module.weight, rounding="gemma").dtype is torch.bfloat16


@pytest.mark.parametrize(("offset", "rounding"), [(0.0, "llama"), (1.0, "gemma"), (1.0, "llama")])
def test_gradients_of_float64_are_those_of_differences(offset, rounding):
    """Of float64 everything is float64; transformers would round to float32 on the way."""
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, offset=offset, rounding=rounding), (x, weight))
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (offset + weight)
    torch.testing.assert_close(rms_norm(x, weight, offset=offset, rounding=rounding), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layer_norm_is_the_formula(dtype, with_bias):
    """In float64, to the rounding of the dtype."""
    x, weight, bias = torch.randn(5, 96).to(dtype), torch.randn(96).to(dtype), torch.randn(96).to(dtype)
    wide = x.double()
    expected = (wide - wide.mean(-1, keepdim=True)) / (wide.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    expected = expected * weight.double() + (bias.double() if with_bias else 0)
    found = layer_norm(x, weight, bias if with_bias else None)
    torch.testing.assert_close(found.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=4e-6)
    assert torch.equal(found, functional.layer_norm(x, (96,), weight, bias if with_bias else None))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's tracer does it
@pytest.mark.parametrize("name", ["auto", "reference", "require:native"])
def test_compiles_whole_under_every_policy(name):
    """One graph; a policy that names an implementation that norms do not have is none to them."""
    torch.compiler.reset()
    operation("nf4_linear")  # has one called native
    x, weight = torch.randn(3, 8, requires_grad=True), torch.randn(8, requires_grad=True)
    compiled = torch.compile(lambda x, w: layer_norm(rms_norm(x, w), w), backend="aot_eager", fullgraph=True)
    with policy(name):
        found, expected = compiled(x, weight), layer_norm(rms_norm(x, weight), weight)
    torch.testing.assert_close(found, expected)
    ours, theirs = torch.autograd.grad(found.sum(), weight), torch.autograd.grad(expected.sum(), weight)
    torch.testing.assert_close(ours, theirs)


def test_says_what_it_runs_in():
    """Rows, one row of weights, columns."""
    choice = explain("rms_norm", shape=(2048, 1, 576))
    assert str(choice).startswith("rms_norm on cpu, float32, 2048x1x576: reference (exact)\n")
    assert choice.rejected == (("liger", "it runs on cuda, not on cpu"), ("triton", "it runs on cuda, not on cpu"))


def test_refuses_what_does_not_fit():
    """By name and value."""
    with pytest.raises(ShapeMismatchError, match="weight"):
        rms_norm(torch.ones(2, 3), torch.ones(4))
    with pytest.raises(ShapeMismatchError, match="bias"):
        layer_norm(torch.ones(2, 3), torch.ones(3), torch.ones(2))
    with pytest.raises(ShapeMismatchError):
        rms_norm(torch.tensor(1.0), torch.tensor(1.0))
    with pytest.raises(InvalidConfigError) as caught:
        rms_norm(torch.ones(2, 3), torch.ones(3), rounding="none")
    assert str(caught.value) == "`rounding` (='none') must be llama or gemma."
