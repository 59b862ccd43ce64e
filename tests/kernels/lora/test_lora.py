"""Results and gradients are those of peft's layers, on dense and on packed weights, with less kept for the backward pass."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional

import bedstone as bs
from bedstone.core.errors import InvalidConfigError, ShapeMismatchError
from bedstone.kernels import lora
from bedstone.testing import tiny_llama

CURVES = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


def projection(rows, columns, dtype=torch.float64, bias=False, rank=3):
    made = [torch.randn(shape, dtype=dtype) for shape in ((rows, columns), (rank, columns), (rows, rank))]
    a, b = (each.requires_grad_() for each in made[1:])
    return lora.LoraProjection(made[0], a, b, 0.7, torch.randn(rows, dtype=dtype) if bias else None)


def composed(x, each):
    """As the paper has it."""
    return functional.linear(x, each.weight, each.bias) + (x @ each.a.T) @ each.b.T * each.scale


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (8,), (0, 8)], ids=str)
def test_is_the_composition(shape, count, bias):
    """Several projections of one x, some of them unused."""
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    projections = [projection(4 + place, 8, bias=bias) for place in range(count)]
    ours, theirs = lora.lora_linear(x, *projections), [composed(x, each) for each in projections]
    wanted = [x, *(matrix for each in projections for matrix in (each.a, each.b))]
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    losses = [sum(each.sin().sum() for each in both[:2]) for both in (ours, theirs)]
    gradients = [torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True) for loss in losses]
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("activation", CURVES)
def test_gradients_are_those_of_differences(activation):
    """Of everything that is trained, in an MLP and before it."""
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    gate, up, down = projection(5, 4), projection(5, 4), projection(4, 5)
    flat = [matrix for each in (gate, up, down) for matrix in (each.a, each.b)]

    def mlp(x, *flat):
        parts = [each._replace(a=flat[2 * n], b=flat[2 * n + 1]) for n, each in enumerate((gate, up, down))]
        return lora.lora_mlp(x, *parts, activation)

    assert torch.autograd.gradcheck(mlp, (x, *flat))
    expected = composed(CURVES[activation](composed(x, gate)) * composed(x, up), down)
    torch.testing.assert_close(mlp(x, *flat), expected, rtol=1e-12, atol=1e-12)


def adapted(scheme=None):
    """A small Llama with peft's adapters, none of them zero."""
    torch.manual_seed(0)
    model = tiny_llama()
    if scheme:
        bs.quantize(model, scheme)
    names = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=names))
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model.base_model.model.model.layers[0]


def of_peft(layer):
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return lora.LoraProjection(layer.base_layer.weight, a, b, layer.scaling["default"], layer.base_layer.bias)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers by the old name
@pytest.mark.parametrize("scheme", [None, "nf4", "int8", "ternary"])
def test_is_pefts_attention_and_mlp(scheme):
    """The modules of a Llama that peft wraps, dense and packed: results, and the gradients of x and of the adapters."""
    layer = adapted(scheme)
    attention, mlp = layer.self_attn, layer.mlp
    x = torch.randn(2, 7, attention.q_proj.base_layer.in_features, requires_grad=True)
    heads = (attention.q_proj, attention.k_proj, attention.v_proj)
    ours = [*lora.lora_linear(x, *map(of_peft, heads)), lora.lora_mlp(x, *map(of_peft, (mlp.gate_proj, mlp.up_proj, mlp.down_proj)))]  # fmt: skip
    theirs = [*(each(x) for each in heads), mlp(x)]
    trained = [weight for name, weight in layer.named_parameters() if "lora_" in name]
    gradients = [torch.autograd.grad(sum(y.sin().sum() for y in both), [x, *trained]) for both in (ours, theirs)]
    for found, expected in [*zip(ours, theirs, strict=True), *zip(*gradients, strict=True)]:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.detach().abs().max()))


def test_half_inputs_and_float32_adapters_are_rounded_as_in_peft():
    """The sum is float32 and rounded once."""
    x = torch.randn(6, 16).bfloat16().requires_grad_()
    each = projection(8, 16, torch.float32)._replace(weight=torch.randn(8, 16).bfloat16())
    (ours,) = lora.lora_linear(x, each)
    wide = functional.linear(x, each.weight) + (x.float() @ each.a.T) @ each.b.T * each.scale
    assert ours.dtype is torch.bfloat16
    torch.testing.assert_close(ours, wide.bfloat16(), rtol=2**-8, atol=1e-6)
    inputs = [x, each.a, each.b]
    above = torch.randn(6, 8).bfloat16()
    for found, expected in zip(
        torch.autograd.grad(ours, inputs, above), torch.autograd.grad(wide.bfloat16(), inputs, above), strict=True
    ):
        assert found.dtype is expected.dtype
        torch.testing.assert_close(found, expected, rtol=2**-6, atol=2**-4)


def kept_bytes(call):
    """Of all that autograd keeps between forward and backward, each memory once; parameters left out."""
    seen = {}

    def note(tensor):
        if (not isinstance(tensor, torch.nn.Parameter) and tensor.grad_fn is not None) or not tensor.requires_grad:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = call()
    return sum(seen.values()), result


def test_keeps_gate_and_up_alone_of_an_mlp():
    """Half of what the composition keeps."""
    x = torch.randn(64, 32, requires_grad=True)
    parts = [projection(256, 32, torch.float32), projection(256, 32, torch.float32), projection(32, 256, torch.float32)]
    ours, _ = kept_bytes(lambda: lora.lora_mlp(x, *parts))
    gate, up, down = parts
    theirs, _ = kept_bytes(lambda: composed(functional.silu(composed(x, gate)) * composed(x, up), down))
    weights = sum(each.weight.nbytes for each in parts)
    wide = 4 * 64 * 256
    assert 2 * wide <= ours - weights < 2.5 * wide
    assert theirs - weights >= 4 * wide


def test_keeps_an_input_once_for_adapters_of_another_dtype():
    """Peft makes a float32 copy of it for each projection."""
    x = torch.randn(64, 512).bfloat16().requires_grad_()
    parts = [projection(8, 512, torch.float32)._replace(weight=torch.randn(8, 512).bfloat16()) for _ in range(3)]
    ours, _ = kept_bytes(lambda: lora.lora_linear(x, *parts))
    theirs, _ = kept_bytes(lambda: [lora.op._composed(x, each) for each in parts])
    assert theirs - ours > 3 * 4 * x.numel() - 2 * x.numel() - 4096


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's tracer does it
def test_compiles_whole():
    """One graph; the results are those of eager mode."""
    torch.compiler.reset()
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    parts = [projection(5, 4), projection(5, 4), projection(4, 5)]

    def both(x):
        return lora.lora_mlp(x, *parts) + lora.lora_linear(x, projection_of_4)[0]

    projection_of_4 = projection(4, 4)
    found, expected = torch.compile(both, backend="aot_eager", fullgraph=True)(x), both(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (ours,), (theirs,) = torch.autograd.grad(found.sum(), x), torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_second_derivative_is_refused():
    """It would be wrong, since what is kept is no longer connected."""
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(lora.lora_linear(x, projection(5, 4))[0].sin().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_refuses_what_does_not_fit():
    """By name."""
    x, each = torch.randn(3, 8, dtype=torch.float64), projection(4, 8)
    with pytest.raises(ShapeMismatchError, match="a"):
        lora.lora_linear(x, each._replace(a=each.a[:, 1:]))
    with pytest.raises(ShapeMismatchError, match="b"):
        lora.lora_linear(x, each._replace(b=each.b[1:]))
    with pytest.raises(InvalidConfigError, match="activation"):
        lora.lora_mlp(x, each, each, projection(8, 4), "relu")
