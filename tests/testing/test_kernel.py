"""The conformance kit passes what is right and names what is wrong."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bedstone.kernels import KernelExtension, KernelImpl, operation, operations
from bedstone.kernels.ask import FORMATS
from bedstone.kernels.composed import ComposedOp, spec_of
from bedstone.testing import check_kernel

OPERATIONS = [f"{verb}_{name}" for name in set(FORMATS.values()) for verb in ("quantize", "dequantize", "linear")]
OPERATIONS += [f"linear_{name}_input_grad" for name in set(FORMATS.values())] + [
    "linear_cross_entropy",
    "rms_norm",
    "layer_norm",
]


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_passes_every_implementation_of_ours(name):
    """All specifications that it does not refuse; those of GPUs are in `tests/kernels/triton`."""
    for each in operation(name).implementations:
        if "cpu" in (each.devices or ("cpu",)):
            few = 18 if each.name == "native_rounded" else 20  # which leaves float8 and odd columns to others
            assert check_kernel(KernelExtension(name, each)) >= few


def altered(name, change, **fields):
    """The reference of an operation, with another result."""
    reference = operation(name).reference

    def call(*args):
        return change(reference.call(*args), args)

    return KernelExtension(name, dataclasses.replace(reference, name="mine", call=call, **fields))


def add_noise(result, args):
    return result + 1e-3 * torch.ones_like(result) if result.dtype is torch.float32 else result


def write_to_input(result, args):
    args[0].zero_()
    return result


def forget_nan(result, args):
    return result.nan_to_num()


def halve_gradient(result, args):
    return result.detach() + (result - result.detach()) / 2


def only_without_gaps(result, args):
    return result if args[0].is_contiguous() else result + 1


def only_from_the_beginning(result, args):
    return result + (args[0].storage_offset() > 0)


class Counter:
    """Gives something else each time."""

    calls = 0

    def __call__(self, result, args):
        self.calls += 1
        return result if self.calls % 2 else result * (1 + 1e-6)


@pytest.mark.parametrize(
    ("extension", "said"),
    [
        (altered("linear_4bit", add_noise), "times what `exact` allows"),
        (altered("linear_8bit", write_to_input), "It changed an argument."),
        (altered("linear_ternary", forget_nan), "does not reach what it reaches in plain torch"),
        (altered("linear_4bit", Counter()), "says it is deterministic"),
        (altered("dequantize_4bit", lambda result, args: result.double()), "It gave torch.float64"),
        (altered("dequantize_8bit", lambda result, args: result * 2), "Its bits are not those of plain torch."),
        (altered("glu", lambda result, args: result * 1.001), "Its result is not near float64's."),
        (altered("chunked_cross_entropy", lambda result, args: (result[0], result[1] + 0.1)), "Its result is not near"),
        (altered("rms_norm", halve_gradient), "Its gradients are not near float64's."),
        (altered("glu", only_without_gaps), "Arguments whose elements lie apart give something else."),
        (altered("attention", only_from_the_beginning), "Arguments that begin in the midst of memory give"),
        (altered("rms_norm", forget_nan), "nan in an argument does not reach what it reaches in plain torch"),
        (altered("linear_4bit", lambda result, args: result, workspace=lambda *args: None), "`workspace` gave None"),
        (altered("linear_4bit", lambda result, args: result, unfit=lambda spec: True), "it must give text"),
        (
            altered("linear_4bit", lambda result, args: result, unfit=lambda spec: "never"),
            "refused every specification",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names_what_is_wrong(extension, said):
    """One part of the contract each."""
    with pytest.raises(AssertionError) as caught:
        check_kernel(extension)
    assert said in str(caught.value)


def test_less_exact_numerics_may_be_further_away():
    """What is too far for `exact` is near enough for `approximate`."""
    near = altered("linear_4bit", lambda result, args: result * (1 + 1e-3), numerics="approximate")
    assert check_kernel(near) > 20
    with pytest.raises(AssertionError, match="what `rounded` allows"):
        check_kernel(
            dataclasses.replace(near, implementation=dataclasses.replace(near.implementation, numerics="rounded"))
        )


def test_an_operation_that_the_compiler_cannot_take_whole_does_not_pass():
    """It breaks the graph in the middle."""

    def broken(x):
        torch._dynamo.graph_break()
        return 2 * x

    made = KernelImpl("reference", broken, lambda x: 0)
    op = ComposedOp(
        "testing_broken",
        lambda x: spec_of(x, len(x), 1, 1),
        made,
        samples={"plain": lambda spec, normal: (normal(spec.columns),)},
        differentiable=1,
    )
    try:
        with pytest.raises(torch._dynamo.exc.Unsupported, match="graph_break"):
            check_kernel(KernelExtension(op.name, made))
    finally:
        del operations[op.name]


def test_what_has_no_derivative_need_not_give_gradients():
    """It says so, and is left out where one is wanted."""
    without = altered("glu", lambda result, args: result.detach(), backward=False)
    assert check_kernel(without) > 20
    with pytest.raises(RuntimeError, match="does not require grad"):
        check_kernel(altered("glu", lambda result, args: result.detach()))
