"""Gated units are those of transformers' models to the bit, and their gradients those of the formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaMLP

from bedstone.core.errors import InvalidConfigError, ShapeMismatchError
from bedstone.kernels import explain, glu, operation
from bedstone.kernels.gated import liger

CURVES = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", CURVES)
def test_is_the_mlp_of_llama(activation, dtype):
    """Its gate and up projections, and its curve under the name that configurations use; result and gradients."""
    config = LlamaConfig(hidden_size=32, intermediate_size=88, hidden_act=CURVES[activation])
    mlp = LlamaMLP(config).to(dtype)
    x = torch.randn(2, 5, 32).to(dtype).requires_grad_()
    ours = mlp.down_proj(glu(mlp.gate_proj(x), mlp.up_proj(x), activation))
    theirs = mlp(x)
    assert torch.equal(ours, theirs)
    wanted = [x, *mlp.parameters()]
    for a, b in zip(torch.autograd.grad(ours.sum(), wanted), torch.autograd.grad(theirs.sum(), wanted), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("activation", CURVES)
def test_gradients_are_those_of_differences(activation):
    """In float64; the value is that of transformers' curve."""
    gate = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    up = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g, u: glu(g, u, activation), (gate, up))
    torch.testing.assert_close(glu(gate, up, activation), ACT2FN[CURVES[activation]](gate) * up, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (7,), (2, 3, 5)], ids=str)
def test_takes_any_shape(shape):
    """Empty and single ones too."""
    assert glu(torch.ones(shape), torch.ones(shape)).shape == shape


def overwriting(gate, up):
    """Forward with the manners of Liger's kernels: all three come back."""
    return gate, up, functional.silu(gate) * up


def overwriting_backward(gate, up, above):
    """It writes the gradients over gate and up, as Liger's does."""
    sigmoid = gate.sigmoid()
    of_gate, of_up = above * up * sigmoid * (1 + gate * (1 - sigmoid)), above * gate * sigmoid
    return gate.copy_(of_gate), up.copy_(of_up)


def test_a_kernel_that_overwrites_its_inputs_is_kept_from_ours(monkeypatch):
    """Gate and up are as before, and a second backward pass gives the same: both fail in silence around Liger's own function."""
    monkeypatch.setattr(liger, "_kernels", lambda activation: (overwriting, overwriting_backward))
    gate, up = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    kept = gate.detach().clone(), up.detach().clone()
    found, above = liger.glu(gate, up, "silu"), torch.randn(3, 5)
    expected = torch.autograd.grad(glu(gate, up), (gate, up), above)
    for _ in range(2):
        for ours, theirs in zip(
            torch.autograd.grad(found, (gate, up), above, retain_graph=True), expected, strict=True
        ):
            torch.testing.assert_close(ours, theirs)
    assert torch.equal(gate, kept[0])
    assert torch.equal(up, kept[1])


def test_says_what_keeps_liger_away():
    """On a machine without it, and of what it cannot do anywhere."""
    absent = operation("glu").implementations[0].but(packages=("no_such_package",))
    assert absent.lacks() == "no_such_package is not installed: pip install liger-kernel"
    exact = explain("glu", device="cuda", shape=(2048, 1, 5632), options="gelu")
    assert exact.rejected == (("liger", "Liger has GeGLU in its tanh form only"),)
    assert explain("glu", shape=(2048, 1, 5632)).rejected == (("liger", "it runs on cuda, not on cpu"),)


def test_refuses_what_does_not_fit():
    """By name and value."""
    with pytest.raises(ShapeMismatchError, match="up"):
        glu(torch.ones(2, 3), torch.ones(3))
    with pytest.raises(InvalidConfigError) as caught:
        glu(torch.ones(2), torch.ones(2), "relu")
    assert str(caught.value) == "`activation` (='relu') must be silu, gelu or gelu_tanh."
