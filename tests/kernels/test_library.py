"""Each operation is what torch asks of one, and says how much memory it works in."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.optests.generate_tests import DEFAULT_TEST_UTILS
from torch.utils._python_dispatch import TorchDispatchMode

from bedstone.core.errors import UnknownNameError
from bedstone.kernels import operations, tiles, workspace_bytes

OPS = torch.ops.bedstone
QUANTIZERS = [
    ("quantize_4bit", 64, "nf4"),
    ("quantize_4bit", 64, "fp4"),
    ("quantize_8bit", torch.int8, 32, False),
    ("quantize_8bit", torch.float8_e4m3fn, 96, True),
    ("quantize_ternary", 32, False),
    ("quantize_ternary", 96, True),
]


def tensors_of(arguments):
    return [value for value in arguments if isinstance(value, torch.Tensor)]


def op_named(name):
    return getattr(OPS, name).default


@pytest.mark.parametrize("shape", [(5, 96), (3, 34), (0, 8)])
def test_every_product_is_an_operation_of_torch(pack, shape):
    """`opcheck`: schema, fake, autograd registration, and AOT dispatch with dynamic shapes.

    Its check of the schema multiplies every argument, which torch cannot do with float8.
    """
    weight = pack(torch.randn(shape))
    floats8 = any(part.dtype.itemsize == 1 and part.is_floating_point() for part in tensors_of(weight.arguments))
    checks = [name for name in DEFAULT_TEST_UTILS if not (floats8 and name == "test_schema")]
    for x in (torch.randn(2, shape[1], requires_grad=True), torch.randn(2, 3, shape[1]).bfloat16()):
        bias = torch.randn(shape[0], dtype=x.dtype, requires_grad=x.requires_grad)
        torch.library.opcheck(weight.linear_op, (x, *weight.arguments, bias), test_utils=checks)
    grad = torch.randn(2, shape[0], requires_grad=True)
    torch.library.opcheck(weight.input_grad_op, (grad, *weight.arguments), test_utils=checks)
    for dtype in (torch.float32, torch.bfloat16):
        torch.library.opcheck(weight.dequantize, (*weight.arguments, dtype), test_utils=checks)


@pytest.mark.parametrize("name_and_options", QUANTIZERS, ids=str)
def test_every_quantizer_is_an_operation_of_torch(name_and_options):
    """The same of what packs."""
    name, *options = name_and_options
    for weight in (torch.randn(5, 96), torch.randn(3, 33).half(), torch.randn(0, 96)):
        torch.library.opcheck(op_named(name), (weight, *options))
    torch.library.opcheck(OPS.quantize_absmax.default, (torch.rand(300),))


def test_compiles_whole(pack):
    """One graph, forward and backward, with the result of the operation itself."""
    torch.compiler.reset()
    weight = pack(torch.randn(5, 96))
    x = torch.randn(3, 96, requires_grad=True)

    def loss(x):
        return weight.linear(x, *weight.arguments, None).sin().sum()

    (expected,) = torch.autograd.grad(loss(x), x)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), loss(x))
    (found,) = torch.autograd.grad(compiled(x), x)
    assert torch.equal(found, expected)


class Log(TorchDispatchMode):
    """Notes every operation that passes the dispatcher."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def test_whoever_watches_sees_the_operation_and_gets_what_nobody_gets(pack):
    """A mode, a profiler and a trace; values and gradients are the same bits, whatever way they came."""
    weight = pack(torch.randn(5, 96))
    x, grad = torch.randn(3, 96, requires_grad=True), torch.randn(3, 5)

    def values():
        out = weight.linear(x, *weight.arguments, None)
        return [out.detach(), *torch.autograd.grad(out, x, grad)]

    unwatched = values()
    with Log() as log:
        watched = values()
    assert {weight.linear_op, weight.input_grad_op} <= set(log.seen)
    with torch.profiler.profile() as profile:
        profiled = values()
    assert any(event.name == f"bedstone::linear_{weight.name}" for event in profile.events())
    for other in (watched, profiled):
        assert all(torch.equal(a, b) for a, b in zip(other, unwatched, strict=True))
    graph = make_fx(lambda x: weight.linear(x, *weight.arguments, None))(x.detach())
    assert weight.linear_op in {node.target for node in graph.graph.nodes}


# --- workspace -----------------------------------------------------------------------------------


def check(measured_bytes, name, *arguments):
    """The declaration is enough, and not more than twice what was taken."""
    op = op_named(name)
    op(*arguments)  # tables are made once
    measured, declared = measured_bytes(lambda: op(*arguments)), workspace_bytes(name, *arguments)
    assert measured <= declared, (name, measured, declared)
    by_vendor = (
        tiles.multiplies_bfloat16() and arguments[0].dtype is torch.bfloat16
    )  # whose own needs depend on the size
    assert by_vendor or declared <= 2 * measured + 2**16, (name, measured, declared)
    on_meta = [
        value.to("meta") if isinstance(value, torch.Tensor) and i else value for i, value in enumerate(arguments)
    ]
    assert workspace_bytes(name, *on_meta) == declared


@pytest.mark.parametrize("shape", [(64, 96), (576, 1536), (1100, 1033)])
def test_a_product_works_in_what_it_declares(measured_bytes, pack, shape):
    """One token and many, float32 and bfloat16, forward and backward; what the BLAS takes for itself is not seen."""
    weight = pack(torch.randn(shape))
    for dtype in (torch.float32, torch.bfloat16):
        for inputs in (1, 300):
            x, grad = torch.randn(inputs, shape[1], dtype=dtype), torch.randn(inputs, shape[0], dtype=dtype)
            check(measured_bytes, f"linear_{weight.name}", x, *weight.arguments, None)
            check(measured_bytes, f"linear_{weight.name}_input_grad", grad, *weight.arguments)
        check(measured_bytes, f"dequantize_{weight.name}", *weight.arguments, dtype)


def test_what_auto_takes_works_in_what_it_declares(measured_bytes, pack_for_auto):
    """Of many rows a panel and the rounded inputs; few rows are not seen, since the library keeps theirs."""
    weight = pack_for_auto(torch.randn(576, 1536))
    for inputs in (1, 20, 300, 1100):
        check(measured_bytes, f"linear_{weight.name}", torch.randn(inputs, 1536), *weight.arguments, None)


@pytest.mark.parametrize("name_and_options", QUANTIZERS, ids=str)
def test_a_quantizer_works_in_what_it_declares(measured_bytes, name_and_options):
    """From float32 and from bfloat16."""
    name, *options = name_and_options
    for dtype in (torch.float32, torch.bfloat16):
        check(measured_bytes, name, torch.randn(900, 96, dtype=dtype), *options)
        check(measured_bytes, name, torch.randn(9, 96 * 900, dtype=dtype).view(8100, 96), *options)
    check(measured_bytes, "quantize_absmax", torch.rand(20_000))


def test_an_unknown_operation_is_refused_by_name():
    """With the nearest and the known ones."""
    with pytest.raises(UnknownNameError) as refused:
        workspace_bytes("linear_4bits")
    known = sorted(
        ["quantize_4bit", "quantize_absmax", "dequantize_4bit", "linear_4bit", "linear_4bit_input_grad"]
        + [f"{verb}_{name}" for verb in ("quantize", "dequantize", "linear") for name in ("8bit", "ternary")]
        + ["linear_8bit_input_grad", "linear_ternary_input_grad"]
    )
    losses = ("linear_cross_entropy", "chunked_cross_entropy")
    known += [name for name in losses if name in operations]  # if another test asked for them
    expected = "No packed operation is called 'linear_4bits'. Did you mean 'linear_4bit'? Known: "
    assert str(refused.value) == expected + ", ".join(sorted(known)) + "."
