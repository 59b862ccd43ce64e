"""The first implementation that can is taken; why the others are not is told, and the policy is obeyed."""

from __future__ import annotations

import json

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
    pinned,
    policy,
    registry,
    select,
)
from bedstone.kernels.measured import forget_measurements, measured, remember
from bedstone.kernels.pins import as_record

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
        "testing_op on cpu, float32, 1x8x8: rounding (rounded)",
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
        "The policy is `require:picky`; with `auto` another one is taken. `kernels.explain` tells more."
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


def test_a_bound_operation_keeps_the_choice_of_its_birth(op):
    """A later policy does not reach it, and the operation itself is not asked again."""
    with policy("require:coarse"):
        bound = op.bind(SPEC)
    op.describe = None
    with policy("reference"):
        bound()
    assert op.ran == ["coarse"]


def test_a_bound_operation_that_cannot_is_refused_when_it_is_bound(op):
    """With the reason, as a call is."""
    with policy("require:picky"), pytest.raises(KernelError, match="it takes bfloat16 only"):
        op.bind(SPEC)
    assert op.ran == []


def test_a_bound_implementation_that_fails_is_told_as_in_a_call():
    """Operation, implementation and shapes; an error of plain torch stays as it is."""

    def fails(x):
        raise ValueError("no luck")

    failing = KernelOp(
        "testing_bound", lambda x: SPEC, KernelImpl("native", fails, len), KernelImpl("reference", fails, len)
    )
    try:
        with pytest.raises(KernelError, match="testing_bound failed in its implementation 'native'") as caught:
            failing.bind(SPEC)(torch.ones(2, 3))
        assert caught.value.shapes == ((2, 3),)
        with policy("reference"), pytest.raises(ValueError, match="no luck"):
            failing.bind(SPEC)(torch.ones(2, 3))
    finally:
        del operations["testing_bound"]


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
        pytest.raises(
            InvalidConfigError, match=r"`policy` \(='.*'\) must be auto, measure, exact, reference or require:"
        ),
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
    choice = explain("quantize_4bit", device="cuda", dtype=torch.bfloat16, shape=(64, 64))
    assert choice.name == "reference"
    assert choice.rejected == (("native", "it runs on cpu, not on cuda"),)
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


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Measurements of this test alone."""
    monkeypatch.setenv("BEDSTONE_CACHE", str(tmp_path / "cache"))
    forget_measurements()
    yield tmp_path / "cache" / "kernels.json"
    monkeypatch.undo()
    forget_measurements()


def test_the_fastest_is_taken_where_somebody_measured(op, cache):
    """For all lengths of the class; the one that would come first is told with its time."""
    remember("testing_op", SPEC._replace(inputs=3), {"rounding": 2e-3, "reference": 1e-3})
    assert op.choice(SPEC).name == "rounding"
    choice = op.choice(SPEC._replace(inputs=4))
    assert choice.name == "reference"
    assert ("rounding", "it took 2 ms here, reference 1 ms") in choice.rejected
    cache.unlink()
    forget_measurements()
    assert op.choice(SPEC._replace(inputs=4)).name == "rounding"


def test_a_broken_file_of_measurements_is_an_error_that_says_what_to_do(op, cache):
    """Nothing is measured or chosen in its place."""
    cache.parent.mkdir()
    cache.write_text("{")
    with pytest.raises(bs.StorageError, match="Delete it"):
        op()


def test_measure_tries_what_may_be_taken_once_a_class(op, cache):
    """An approximate one is not tried; the figures are on disk and count from then on."""
    with policy("measure"):
        op()
        assert set(op.ran) == {"rounding", "reference"}
        tried = len(op.ran)
        op()
        assert len(op.ran) == tried + 1
    assert set(measured("testing_op", SPEC)) == {"rounding", "reference"}
    assert cache.exists()


def test_pinned_choices_are_made_again(op):
    """For the class of the specification; another class is free; what cannot be taken is an error."""
    with policy("reference"):
        op()
        kept = op.chosen()
    assert kept == [{"op": "testing_op", "implementation": "reference", **as_record(SPEC)}]
    with pinned(json.loads(json.dumps(kept))):
        assert op.choice(SPEC).name == "reference"
        assert op.choice(SPEC._replace(rows=9)).name == "rounding"
    assert op.choice(SPEC).name == "rounding"
    with (
        pinned([{**kept[0], "implementation": "picky"}]),
        pytest.raises(KernelError, match="'picky': it takes bfloat16 only"),
    ):
        op()
    with pytest.raises(InvalidConfigError, match="no record of a chosen kernel"), pinned([{"op": "testing_op"}]):
        pass


@pytest.mark.parametrize("name", ["strict", "auto,strict", "exact,strict"])
def test_strict_takes_no_plain_torch_where_something_faster_cannot(name):
    """If that runs on the device at all; chosen by the policy it is no substitute."""
    made = KernelOp(
        "strict_op",
        lambda: SPEC,
        KernelImpl("elsewhere", int, int, devices=("cuda",)),
        KernelImpl("half", int, int, dtypes=(torch.float16,)),
        KernelImpl("reference", int, int),
    )
    try:
        assert made() == 0
        with policy(name), pytest.raises(KernelError) as caught:
            made()
        assert str(caught.value).startswith(
            "strict_op on cpu, float32, 1x8x8 would run in plain torch, since half cannot: it takes float16, not float32."
        )
        with policy("reference", strict=True):
            assert made() == 0
        made.describe = lambda: SPEC._replace(dtype=torch.float16)
        with policy(name):
            assert made.choice(made.describe()).name == "half"
    finally:
        del operations["strict_op"]


def test_statements_of_an_implementation_refuse_with_a_reason():
    """Device, dtype, gaps, derivative, package, in that order."""
    made = KernelImpl(
        "made", int, int, lambda spec: "it takes 8 rows" if spec.rows != 8 else "",
        devices=("cpu",), dtypes=(torch.float32,), contiguous=True, backward=False,
        packages=("no_such_package",), install="pip install no-such-package",
    )  # fmt: skip
    for changes, reason in (
        ({"device": "xpu"}, "it runs on cpu, not on xpu"),
        ({"dtype": torch.bfloat16}, "it takes float32, not bfloat16"),
        ({"contiguous": False}, "it takes inputs without gaps between their elements"),
        ({"grad": True}, "it has no derivative"),
        ({"rows": 9}, "it takes 8 rows"),
        ({}, "no_such_package is not installed: pip install no-such-package"),
    ):
        assert made.cannot(SPEC._replace(**changes)) == reason


def test_what_is_missing_here_is_told_as_what_would_be_taken(op):
    """A newcomer reads what to install."""
    lacking = KernelImpl("fast", int, int, packages=("no_such_package",), install="pip install no-such-package")
    op._own = (lacking, *op._own)
    choice = op.choice(SPEC)
    assert (choice.name, choice.wanted) == ("rounding", "fast")
    assert "With what is missing here, fast would be taken." in str(choice)
