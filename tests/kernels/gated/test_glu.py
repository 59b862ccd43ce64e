"""Gated units are those of transformers' models to the bit, and their gradients those of the formula."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaMLP

from bedstone.core.errors import InvalidConfigError, ShapeMismatchError
from bedstone.kernels import explain, glu

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


def test_says_what_keeps_liger_away():
    """On a machine without it, and of what it cannot do anywhere."""
    on_gpu = explain("glu", device="cuda", dtype=torch.bfloat16, shape=(2048, 1, 5632))
    assert on_gpu.name == "reference"
    assert dict(on_gpu.rejected)["liger"].endswith(" is not installed: pip install liger-kernel")
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
