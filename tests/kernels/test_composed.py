"""A composed operation is chosen as any other, runs under torch's autograd, and gives the compiler plain torch to fuse."""

from __future__ import annotations

import pytest
import torch

from bedstone.kernels import KernelExtension, KernelImpl, extensions, forget_choices, operations, policy
from bedstone.kernels.composed import ComposedOp, spec_of

pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's tracer


@pytest.fixture
def op():
    """Doubles; the fast way also adds 1, so that one sees who ran."""
    made = ComposedOp(
        "testing_double",
        lambda x: spec_of(x, len(x), 1, 1),
        KernelImpl("fast", lambda x: 2 * x + 1, lambda x: 0, backward=False),
        KernelImpl("reference", lambda x: 2 * x, lambda x: 0),
        differentiable=1,
    )
    torch.compiler.reset()
    yield made
    del operations["testing_double"]


def compiled(op):
    return torch.compile(lambda x: op(x) + 0, backend="aot_eager", fullgraph=True)


def test_what_has_no_derivative_is_left_out_where_one_is_wanted(op):
    """The specification says whether the graph is recorded."""
    x = torch.ones(3)
    assert op(x)[0] == 3
    assert op(x.requires_grad_())[0] == 2
    with torch.no_grad():
        assert op(x)[0] == 3
    assert op.choice(spec_of(x, 3, 1, 1)).rejected == (("fast", "it has no derivative"),)


def test_the_compiler_is_given_plain_torch(op):
    """It fuses what it sees."""
    assert compiled(op)(torch.ones(3))[0] == 2


def test_the_compiler_is_given_what_is_required_by_name(op):
    """And again plain torch when the policy ends: the choice is no constant of the graph."""
    double = compiled(op)
    with policy("require:fast"):
        assert double(torch.ones(3))[0] == 3
    assert double(torch.ones(3))[0] == 2


def test_what_another_package_adds_is_not_traced_in_silence(op, monkeypatch):
    """Required by name it is an error, not plain torch."""
    mine = KernelImpl("mine", lambda x: x + 4, lambda x: 0)
    added = {**extensions.items(), "mine": KernelExtension("testing_double", mine)}
    monkeypatch.setattr(extensions, "_members", added)
    forget_choices()
    assert op(torch.ones(3))[0] == 5
    assert compiled(op)(torch.ones(3))[0] == 2
    with policy("require:mine"):
        assert op(torch.ones(3))[0] == 5
        with pytest.raises(Exception, match="the compiler traces implementations of bedstone only"):
            compiled(op)(torch.ones(3))
