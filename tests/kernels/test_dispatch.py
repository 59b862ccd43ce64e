"""Attention, NF4 linear and the fused loss through `dispatch`: checked for where they are, computed by the registry."""

from __future__ import annotations

import dataclasses
from dataclasses import fields

import pytest
import torch
from torch.nn import functional

from bedstone.core.errors import DeviceMismatchError, DeviceNotAvailableError
from bedstone.kernels import attention, explain, fourbit, operation, policy
from bedstone.kernels.dispatch import (
    Attention,
    AttentionInput,
    CrossEntropyInput,
    LinearCrossEntropy,
    Nf4Linear,
    Nf4LinearInput,
)


def of_attention():
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    mask = torch.rand(5, 5) > 0.3
    given = AttentionInput(q, k, v, mask | torch.eye(5, dtype=torch.bool), True, 0.5, 3, 2.0)
    return given, attention(q, k, v, mask=given.mask, causal=True, scale=0.5, window=3, softcap=2.0)


def of_linear():
    x, weight, bias = torch.randn(3, 128), torch.randn(6, 128), torch.randn(6)
    packed, absmax = fourbit.quantize_4bit(weight, 64, "nf4")
    absmax, nested, offset = fourbit.quantize_absmax(absmax)
    dense = fourbit.dequantize_4bit(packed, absmax, nested, offset, [6, 128], 64, "nf4", torch.float32)
    return Nf4LinearInput(x, packed, absmax, (6, 128), 64, nested, offset, bias), functional.linear(x, dense, bias)


def of_loss():
    hidden, weight, bias = torch.randn(6, 8), torch.randn(20, 8), torch.randn(20)
    labels, weights = torch.tensor([1, 2, 7, 4, 19, 0]), torch.rand(6)
    given = CrossEntropyInput(hidden, weight, labels, bias, "sum", 7, 0.1, 0.01, 3.0, weights)
    logits = 3 * torch.tanh(functional.linear(hidden, weight, bias) / 3)
    losses = functional.cross_entropy(logits, labels, reduction="none", ignore_index=7, label_smoothing=0.1)
    return given, ((losses + 0.01 * logits.logsumexp(1).square()) * weights * (labels != 7)).sum()


CASES = {"attention": (Attention, of_attention), "nf4": (Nf4Linear, of_linear), "loss": (LinearCrossEntropy, of_loss)}
each_case = pytest.mark.parametrize("case", CASES)


@each_case
def test_dispatch_computes_the_operation_with_every_field(case):
    """None of them is at its default."""
    made, given = CASES[case]
    given, expected = given()
    torch.testing.assert_close(made().dispatch(given, "cpu"), expected, rtol=1e-5, atol=1e-5)
    plain = {field.name: field.default for field in fields(given) if field.default is not dataclasses.MISSING}
    assert not [name for name, default in plain.items() if default is getattr(given, name) and name != "block_size"]


@each_case
def test_inputs_elsewhere_are_an_error_that_names_them(case):
    """Nothing is moved."""
    made, given = CASES[case]
    given, _ = given()
    first = fields(given)[0].name
    with pytest.raises(DeviceMismatchError, match=rf"`input.{first}` has device cpu, expected cuda:0."):
        made().dispatch(given, "cuda:0")
    last = [field.name for field in fields(given) if isinstance(getattr(given, field.name), torch.Tensor)][-1]
    moved = dataclasses.replace(given, **{last: getattr(given, last).to("meta")})
    with pytest.raises(DeviceMismatchError, match=rf"`input.{last}` has device meta, expected cpu."):
        made().dispatch(moved, "cpu")


@each_case
def test_an_accelerator_is_served_by_the_registry_too(case):
    """The way of a GPU, tried on the one other device that every machine has, which computes shapes."""
    made, given = CASES[case]
    given, expected = given()
    away = {
        field.name: value.to("meta") if isinstance(value := getattr(given, field.name), torch.Tensor) else value
        for field in fields(given)
    }
    served = type("Served", (made,), {"gpu_types": frozenset({"meta"})})()
    if case != "loss":  # which rows count depends on the labels, and these have no values there
        found = served.dispatch_gpu(type(given)(**away), torch.device("meta"))
        assert (found.shape, found.device.type) == (expected.shape, "meta")
    with pytest.raises(DeviceNotAvailableError, match="has no implementation for the device meta"):
        made().dispatch(type(given)(**away), "meta")


@each_case
def test_the_policy_decides_here_too(case):
    """It is the registry's operation, by the name that `explain` takes."""
    made, given = CASES[case]
    given, _ = given()
    op = operation(made.op)
    with policy("reference"):
        made().dispatch(given, "cpu")
        assert {record["implementation"] for record in op.chosen()} == {"reference"}
        assert explain(made.op).name == "reference"


def test_gradients_pass():
    """As through the function."""
    given, _ = of_loss()
    hidden = given.hidden.clone().requires_grad_()
    LinearCrossEntropy().dispatch(dataclasses.replace(given, hidden=hidden), "cpu").backward()
    assert hidden.grad is not None
