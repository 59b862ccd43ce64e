"""The conformance kit passes what is right and names what is wrong."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bedstone.kernels import KernelExtension, operation
from bedstone.kernels.ask import FORMATS
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
    for each in (each for each in operation(name).implementations if each.devices != ("cuda",)):
        assert check_kernel(KernelExtension(name, each)) >= 20


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
