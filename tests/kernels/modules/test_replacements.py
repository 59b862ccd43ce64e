"""Replacements of others: found by their own rule, compared like ours, and called with the operation that the policy chose."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bedstone.kernels import KernelExtension, KernelImpl, Replacement, apply, extensions, forget_choices, operation
from bedstone.kernels.modules import known
from bedstone.kernels.modules.replacement import replacements, sample_rows
from bedstone.testing import tiny_llama


class Cube(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.scale * x * x * x


def cubes(new, **options):
    return Replacement(
        recognises=lambda module: isinstance(module, Cube),
        unfit=lambda module: "",
        inputs=lambda module: (sample_rows(module, 4),),
        make=lambda module, call: (new,),
        **options,
    )


@pytest.fixture
def added(monkeypatch):
    """`(name, replacement)`: adds one for the test."""
    members = dict(replacements.items())
    monkeypatch.setattr(replacements, "_members", members)
    return replacements.add


def test_one_of_others_is_found_and_compared(added):
    added("cube", cubes(lambda self, x: self.scale * x.pow(3)))
    model = nn.Sequential(Cube(), nn.Linear(4, 4), Cube())
    x = torch.randn(5, 4)
    before = model(x)
    assert str(apply(model).report()) == "cube: matched 2 of 2 (2 calls of torch instead of 3)"
    torch.testing.assert_close(model(x), before)


def test_numerics_say_how_near_and_policies_heed_them(added):
    added("cube", cubes(lambda self, x: self.scale * x.pow(3) * (1 + 1e-4), numerics="rounded"))
    exact, auto = Cube(), Cube()
    (refused,) = apply(exact, "exact").report().modules
    assert refused.reason == "the policy is `exact`, and it is rounded"
    assert "forward" not in vars(exact)
    (taken,) = apply(auto, "reference").report().modules
    assert taken.reason == "as the policy asks"


def test_what_raises_in_the_new_forward_is_its_reason(added):
    def failing(self, x):
        raise RuntimeError("out of luck")

    added("cube", cubes(failing))
    (refused,) = apply(Cube()).report().modules
    assert refused.reason == "it could not be compared, RuntimeError: out of luck"


def test_a_replacement_of_the_same_name_takes_the_place_of_ours(added):
    mine = cubes(lambda self, x: self.scale * x.pow(3))
    added("rms_norm", mine)
    assert known.known_replacements()["rms_norm"] is mine
    assert apply(tiny_llama()).report().found == {"gated_mlp": 2}


@pytest.fixture
def acme(monkeypatch):
    """An implementation of `rms_norm` that counts its calls."""
    calls = []
    reference = operation("rms_norm").reference

    def call(*args):
        calls.append(args[0].shape)
        if "fail" in calls:
            raise ValueError("no more")
        return reference.call(*args)

    made = KernelImpl("acme", call, lambda *args: 0)
    monkeypatch.setattr(extensions, "_members", {**extensions.items(), "acme": KernelExtension("rms_norm", made)})
    forget_choices()
    yield calls
    monkeypatch.undo()
    forget_choices()


def test_another_implementation_of_the_operation_is_taken_and_called(acme):
    model = tiny_llama()
    before = model(torch.arange(6)[None]).logits
    report = apply(model).report()
    assert {each.reason for each in report.of("rms_norm")} == {"acme runs"}
    acme.clear()
    assert torch.equal(model(torch.arange(6)[None]).logits, before)
    assert len(acme) == 5


def test_the_policy_of_apply_is_kept_by_the_replaced_calls(acme):
    from bedstone.kernels import policy

    model = tiny_llama()
    apply(model, "require:acme")
    acme.clear()
    with policy("reference"):
        model(torch.arange(9)[None])
    assert len(acme) == 5
    plain = tiny_llama()
    apply(plain, "reference")
    acme.clear()
    plain(torch.arange(9)[None])
    assert acme == []


def test_an_implementation_that_fails_is_an_error_that_names_it(acme):
    from bedstone.core.errors import KernelError

    model = tiny_llama()
    apply(model)
    acme.append("fail")
    with pytest.raises(KernelError, match="rms_norm failed in its implementation 'acme': ValueError: no more"):
        model(torch.arange(6)[None])
