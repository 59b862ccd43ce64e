"""A pattern in a graph is replaced where that gives the same; else nothing changes, and one error says why."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx import symbolic_trace
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from bedstone.core.errors import InvalidConfigError
from bedstone.kernels import FusionHint, RewriteError, rewrite, rewrite_all
from bedstone.testing import check_error

X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A norm as Llama writes it, and a gated unit."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.weight = nn.Parameter(torch.rand(8))
            self.gate, self.up = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        dtype = x.dtype
        h = x.to(torch.float32)
        variance = h.pow(2).mean(-1, keepdim=True)
        h = self.weight * (h * torch.rsqrt(variance + 1e-6)).to(dtype)
        return {"normed": h, "gated": F.silu(self.gate(h)) * self.up(h)}


def gated(gate, up):
    return F.silu(gate) * up


def by_hand(gate, up):
    return gate * torch.sigmoid(gate) * up


def exported():
    return torch.export.export(Block(), (X,)).module()


def aten_relu(x):
    return torch.ops.aten.relu.default(x)


def sigmoid(x):
    return torch.sigmoid(x)


def aten_gated(gate, up):
    return torch.ops.aten.mul.Tensor(torch.ops.aten.silu.default(gate), up)


@pytest.mark.parametrize(
    ("graph", "pattern", "inputs"), [(lambda: symbolic_trace(Block()), gated, (X,)), (exported, aten_gated, None)]
)
def test_a_pattern_is_replaced_in_a_copy_that_shares_the_weights(graph, pattern, inputs):
    old = graph()
    code, before = old.code, old(X)
    new = rewrite(old, pattern, by_hand, inputs=inputs)
    (record,) = new.meta["bedstone_rewrites"]
    assert (record.name, record.matches, record.refused) == ("by_hand", 1, "")
    assert 0 <= record.largest < 1e-5
    assert "sigmoid" in new.code
    assert "silu" not in new.code
    assert old.code == code
    assert "bedstone_rewrites" not in old.meta
    assert {name: each.data_ptr() for name, each in new.named_parameters()} == {
        name: each.data_ptr() for name, each in old.named_parameters()
    }
    torch.testing.assert_close(new(X), before)


def test_every_place_is_found_and_counted():
    old = symbolic_trace(lambda a, b: gated(gated(a, b), gated(b, a)))
    new = rewrite(old, gated, by_hand, inputs=(X, X + 1))
    assert new.meta["bedstone_rewrites"][0].matches == 3


def test_numbers_are_matched_by_arguments_of_the_pattern():
    old = symbolic_trace(lambda x: (x + 3).relu())
    new = rewrite(old, lambda x, n: (x + n).relu(), lambda x, n: (x + n).clamp_min(0), inputs=(X,))
    torch.testing.assert_close(new(X), old(X))


def test_rewrites_of_a_rewritten_graph_are_listed_in_order():
    new = rewrite(symbolic_trace(Block()), gated, by_hand, inputs=(X,))
    again = rewrite(new, sigmoid, lambda x: 1 / (1 + torch.exp(-x)), inputs=(X,), name="written_out")
    assert [each.name for each in again.meta["bedstone_rewrites"]] == ["by_hand", "written_out"]
    assert len(new.meta["bedstone_rewrites"]) == 1


def test_another_result_is_an_error_that_says_how_far_and_where():
    old = symbolic_trace(Block())
    code = old.code
    with pytest.raises(RewriteError) as error:
        rewrite(old, gated, lambda gate, up: 1.5 * by_hand(gate, up), inputs=(X,), name="one_and_a_half")
    assert str(error.value).startswith("`one_and_a_half` computes something else: it differs by ")
    assert " in the output ['gated'] at (" in str(error.value)
    assert error.value.rewrite == "one_and_a_half"
    assert error.value.largest > 0.1
    assert old.code == code


def test_another_gradient_is_an_error_unless_gradients_do_not_matter():
    def cut(gate, up):
        return by_hand(gate, up.detach())

    old = symbolic_trace(Block())
    with pytest.raises(RewriteError, match="gradient"):
        rewrite(old, gated, cut, inputs=(X,))
    new = rewrite(old, gated, cut, inputs=(X,), gradients=False)
    torch.testing.assert_close(new(X), old(X))


def test_what_is_near_enough_is_said_by_its_numerics():
    def coarse(gate, up):
        return by_hand(gate, up) * (1 + 1e-4)

    old = symbolic_trace(gated)
    with pytest.raises(RewriteError):
        rewrite(old, gated, coarse, inputs=(X, X))
    assert rewrite(old, gated, coarse, inputs=(X, X), numerics="rounded").meta["bedstone_rewrites"][0].largest > 1e-5


def test_another_shape_and_a_failing_replacement_are_errors():
    with pytest.raises(RewriteError, match=r"the output is float32 \(3, 1\) instead of float32 \(3, 8\)"):
        rewrite(symbolic_trace(gated), gated, lambda gate, up: by_hand(gate, up)[:, :1], inputs=(X, X))
    with pytest.raises(RewriteError, match="With `badly` the graph fails, RuntimeError: "):
        rewrite(symbolic_trace(gated), gated, lambda gate, up: gate @ up, inputs=(X, X), name="badly")


def test_a_pattern_that_is_nowhere_says_which_operations_are():
    with pytest.raises(RewriteError) as error:
        rewrite(symbolic_trace(gated), aten_gated, by_hand, inputs=(X, X))
    assert str(error.value) == (
        "The pattern of `by_hand` is nowhere in the graph: the graph has no torch.ops.aten.silu.default, no torch.ops.aten.mul.Tensor. "
        "The graph has torch.nn.functional.silu, operator.mul. Write the pattern in these."
    )
    with pytest.raises(RewriteError, match="but never so connected, or with another use of what lies between"):
        rewrite(symbolic_trace(lambda a, b: F.silu(a) + a * b), gated, by_hand, inputs=(X, X))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            (Block(), gated, by_hand),
            {},
            (
                "`graph_module` must be a torch.fx.GraphModule, not Block. "
                "Trace it: `torch.fx.symbolic_trace(model)`, or `torch.export.export(model, inputs).module()`."
            ),
        ),
        (
            (symbolic_trace(gated), gated, lambda gate: gate.relu()),
            {"name": "relu"},
            "`replacement` takes 1 arguments, the pattern 2. Give both the same arguments.",
        ),
        (
            (symbolic_trace(gated), gated, by_hand),
            {},
            "The graph does not know the shape of its argument `gate`. Give example arguments: `inputs=(x,)`.",
        ),
        (
            (symbolic_trace(gated), gated, by_hand),
            {"inputs": X},
            "`inputs` must be a tuple of arguments, not Tensor. Write `inputs=(x,)`.",
        ),
        (
            (symbolic_trace(gated), gated, by_hand),
            {"inputs": (X, X[:, :3])},
            (
                "The graph does not take the `inputs`, RuntimeError: The size of tensor a (8) must match the size of tensor b (3) at "
                "non-singleton dimension 1. Give arguments that `graph_module(*inputs)` takes."
            ),
        ),
        ((symbolic_trace(gated), "gated", by_hand), {}, "`pattern` must be a function or a GraphModule, not str."),
        ((symbolic_trace(gated), lambda x: x, by_hand), {}, "`pattern` (=<lambda>) contains no operation."),
        (
            (symbolic_trace(gated), gated, by_hand),
            {"inputs": (X, X), "numerics": "roughly"},
            "`numerics` (='roughly') must be exact, rounded or approximate.",
        ),
    ],
)
def test_bad_arguments_are_one_clear_error(arguments, options, message):
    with pytest.raises(InvalidConfigError) as error:
        rewrite(*arguments, **options)
    assert str(error.value) == message


def test_a_pattern_that_branches_on_values_cannot_be_traced():
    with pytest.raises(InvalidConfigError, match=r"`pattern` \(=branching\) cannot be traced, TraceError"):
        rewrite(symbolic_trace(gated), branching, by_hand, inputs=(X, X))


def branching(gate, up):
    return gate if gate.sum() > 0 else up


def test_the_error_is_one_of_the_tree():
    check_error(RewriteError, message="The pattern of `fused` is nowhere in the graph.", rewrite="fused")


def test_our_hints_find_norm_and_gated_unit_in_traced_and_exported_graphs():
    for old, inputs in ((symbolic_trace(Block()), (X,)), (exported(), None)):
        new = rewrite_all(old, inputs=inputs)
        kept = [
            each.name.removesuffix(" of torch.export") for each in new.meta["bedstone_rewrites"] if not each.refused
        ]
        assert kept == ["rms_norm", "swiglu"]
        assert len(new.meta["bedstone_rewrites"]) == 4
        for name, expected in old(X).items():
            assert torch.equal(new(X)[name], expected)
        compiled = torch.compile(new, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(X), old(X))


def test_a_hint_that_would_change_something_is_noted_and_the_others_are_kept():
    hints = [
        FusionHint("wrong", gated, lambda gate, up: gate * up),
        FusionHint("absent", lambda x: torch.tanh(x) + 1, lambda x: x.tanh() + 1),
        FusionHint("right", gated, by_hand),
    ]
    new = rewrite_all(symbolic_trace(gated), hints, (X, X))
    found = {each.name: each for each in new.meta["bedstone_rewrites"]}
    assert found["wrong"].refused.startswith("`wrong` computes something else: it differs by ")
    assert (
        found["absent"].refused
        == "The pattern of `absent` is nowhere in the graph: the graph has no torch.tanh, no operator.add."
    )
    assert str(found["right"]).startswith("right: 1 times, largest difference ")
    torch.testing.assert_close(new(X, X), gated(X, X))


def test_exported_guards_and_integer_inputs_survive():
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 8)

        def forward(self, ids):
            return torch.relu(self.table(ids))

    old = torch.export.export(Embedded(), (torch.tensor([[1, 4]]),)).module()
    new = rewrite(old, aten_relu, lambda x: torch.clamp_min(x, 0))
    ids = torch.tensor([[3, 2]])
    assert torch.equal(new(ids), old(ids))
    with pytest.raises(AssertionError, match="Guard failed"):
        new(torch.tensor([[3, 2, 1]]))
