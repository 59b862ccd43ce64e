"""The first implementation that can is taken; why the others are not is told, and the policy is obeyed."""

from __future__ import annotations

import pytest
import torch

import bedstone as bs
from bedstone.core.errors import InvalidConfigError, KernelError, UnknownNameError
from bedstone.kernels import (
    KernelExtension,
    KernelImpl,
    KernelOp,
    KernelSpec,
    current_policy,
    explain,
    extensions,
    forget_choices,
    operations,
    policy,
    registry,
    select,
)

SPEC = KernelSpec("cpu", torch.float32, 1, 8, 8)


@pytest.fixture
def op():
    """An operation with three implementations that tell who ran; removed afterwards."""
    ran = []

    def implementation(name, unfit=lambda _: "", numerics="exact"):
        return KernelImpl(name, lambda: ran.append(name), lambda: len(name), unfit, numerics)

    made = KernelOp(
        "testing_op",
        lambda: SPEC,
        implementation("picky", lambda spec: "it takes bfloat16 only" if spec.dtype != torch.bfloat16 else ""),
        implementation("coarse", numerics="approximate"),
        implementation("rounding", numerics="rounded"),
        implementation("reference"),
    )
    made.ran = ran
    yield made
    del operations["testing_op"]


def test_takes_the_first_that_can_and_says_why_not_the_others(op):
    """With each reason, in order; what it needs is that of the chosen one."""
    op()
    assert op.ran == ["rounding"]
    assert op.workspace() == len("rounding")
    choice = op.choice(SPEC)
    assert (choice.name, choice.numerics) == ("rounding", "rounded")
    assert choice.rejected == (
        ("picky", "it takes bfloat16 only"),
        ("coarse", "it is approximate, and so taken by name only"),
    )
    assert str(choice).splitlines() == [
        "testing_op on cpu, torch.float32, 1x8x8: rounding (rounded)",
        "  not picky: it takes bfloat16 only",
        "  not coarse: it is approximate, and so taken by name only",
    ]


@pytest.mark.parametrize(
    ("name", "taken"), [("reference", "reference"), ("exact", "reference"), ("require:coarse", "coarse")]
)
def test_the_policy_decides_and_ends_with_its_block(op, name, taken):
    """Choices of before and of within do not mix."""
    op()
    with policy(name):
        op()
    op()
    assert op.ran == ["rounding", taken, "rounding"]


def test_the_variable_is_the_policy_where_no_block_is(op, monkeypatch):
    """And a block is stronger."""
    monkeypatch.setenv("BEDSTONE_KERNELS", "reference")
    op()
    with policy("auto"):
        op()
    assert op.ran == ["reference", "rounding"]


def test_a_required_implementation_that_cannot_is_an_error_with_the_reason(op):
    """Nothing else runs in its place."""
    with policy("require:picky"), pytest.raises(KernelError) as caught:
        op()
    assert str(caught.value) == (
        "testing_op cannot take the required implementation 'picky': it takes bfloat16 only. "
        "Use the policy `auto`, or see `kernels.explain`."
    )
    assert (caught.value.op, caught.value.implementation) == ("testing_op", "picky")
    assert op.ran == []


def test_a_required_implementation_that_nobody_has_is_refused_by_name(op):
    """An operation that has none of a name that others have is free."""
    with policy("require:nativ"), pytest.raises(UnknownNameError, match="Did you mean 'native'"):
        op()
    with policy("require:native"):
        op()
    assert op.ran == ["rounding"]


def test_an_implementation_that_fails_is_told_and_nothing_else_is_tried():
    """The operation, the implementation, the shapes; torch's own error of plain torch stays as it is."""

    def fails(x):
        raise ValueError("no luck")

    def describe(x):
        return SPEC

    made = KernelOp(
        "failing_op", describe, KernelImpl("fast", fails, lambda x: 0), KernelImpl("reference", fails, lambda x: 0)
    )
    try:
        with pytest.raises(KernelError) as caught:
            made(torch.ones(2, 3))
        assert str(caught.value) == (
            "failing_op failed in its implementation 'fast': ValueError: no luck "
            'Plain torch computes it too: `kernels.policy("reference")`, or BEDSTONE_KERNELS=reference.'
        )
        assert caught.value.shapes == ((2, 3),)
        with policy("reference"), pytest.raises(ValueError, match="no luck"):
            made(torch.ones(2, 3))
    finally:
        del operations["failing_op"]


def test_an_extension_comes_first_and_can_be_left_out(monkeypatch):
    """Its `unfit` decides; the policy can name ours."""
    from bedstone.kernels import fourbit

    reference = fourbit.reference.linear
    ran = []

    def mine(*args):
        ran.append(args[0].shape)
        return reference(*args)

    made = KernelImpl("mine", mine, lambda *args: 0, lambda spec: "" if spec.inputs == 2 else "it takes 2 rows only")
    monkeypatch.setattr(extensions, "_members", {**extensions._members, "mine": KernelExtension("linear_4bit", made)})
    forget_choices()
    try:
        packed = bs.quantize(torch.randn(8, 64), "nf4")
        for inputs in (1, 2):
            torch.nn.functional.linear(torch.randn(inputs, 64), packed)
        assert ran == [(2, 64)]
        assert dict(explain("nf4_linear", shape=(1, 8, 64)).rejected)["mine"] == "it takes 2 rows only"
        with policy("reference"):
            torch.nn.functional.linear(torch.randn(2, 64), packed)
        assert len(ran) == 1
    finally:
        monkeypatch.undo()
        forget_choices()


@pytest.mark.parametrize("name", ["fast", "require", "require:", ""])
def test_an_unknown_policy_is_refused(name, monkeypatch):
    """By argument and by variable."""
    with (
        pytest.raises(InvalidConfigError, match=r"`policy` \(='.*'\) must be auto, exact, reference or require:"),
        policy(name),
    ):
        pass
    if name:
        monkeypatch.setenv("BEDSTONE_KERNELS", name)
        with pytest.raises(InvalidConfigError, match="`BEDSTONE_KERNELS`"):
            current_policy()


def test_select_reads_the_specification_from_the_arguments():
    """Nothing runs; the choice names the device, dtype and size."""
    from bedstone.kernels.fourbit import quantize_4bit

    packed, absmax = quantize_4bit(torch.randn(8, 64), 64, "nf4")
    choice = select("linear_4bit", torch.randn(3, 64), packed, absmax, None, None, [8, 64], 64, "nf4", None)
    assert choice.spec == KernelSpec("cpu", torch.float32, 3, 8, 64)
    assert choice == explain("linear_4bit", shape=(3, 8, 64))
    weight = bs.quantize(torch.randn(8, 64), "nf4")
    assert select("nf4_linear", torch.randn(3, 64), weight) == choice
    assert select("nf4_dequantize", weight).spec == KernelSpec("cpu", torch.float32, 0, 8, 64)


def test_explain_needs_no_device_and_names_what_is_missing():
    """What would run on a GPU, asked where there is none."""
    choice = explain("dequantize_4bit", device="cuda", dtype=torch.bfloat16, shape=(64, 64))
    assert choice.name == "reference"
    assert choice.rejected == (("native", "the compiled CPU library runs on cpu, not on cuda"),)
    with pytest.raises(UnknownNameError, match="Did you mean 'linear_4bit'"):
        explain("linear_4bits")


def test_float64_is_left_to_torch():
    """The library has float32 and the two halves."""
    assert explain("linear_8bit", dtype=torch.float64).name == "reference"


def test_choices_do_not_pile_up(op, monkeypatch):
    """A model that sees every length keeps no more than a few thousand of them."""
    monkeypatch.setattr(registry, "_KEPT_CHOICES", 3)
    for rows in range(20):
        op.describe = lambda rows=rows: SPEC._replace(rows=rows)
        op()
    assert len(op._chosen) <= 3
