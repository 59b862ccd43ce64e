"""The loss and its gradients are those of the formula written out with all logits, for every option."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from bedstone.core.errors import InvalidConfigError, ShapeMismatchError
from bedstone.kernels import workspace_bytes
from bedstone.kernels.cross_entropy import linear_cross_entropy, reference
from bedstone.kernels.cross_entropy.op import linear_cross_entropy_op

OPTIONS = {
    "plain": {},
    "smoothing": {"label_smoothing": 0.1},
    "z-loss": {"z_loss": 0.01},
    "softcap": {"softcap": 4.0},
    "weights": {"token_weights": True},
    "all": {"label_smoothing": 0.2, "z_loss": 0.03, "softcap": 3.0, "token_weights": True},
}


def written_out(hidden, weight, labels, bias, reduction, options):
    """As in the papers, with torch's own cross-entropy."""
    logits = hidden @ weight.T + (0 if bias is None else bias)
    if cap := options.get("softcap"):
        logits = cap * torch.tanh(logits / cap)
    smoothing = options.get("label_smoothing", 0.0)
    losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    kept = labels != -100
    losses = losses + options.get("z_loss", 0.0) * logits.logsumexp(1).square() * kept
    weights = options.get("token_weights")
    if weights is not None:
        losses = losses * weights
    if reduction == "none":
        return losses
    return losses.sum() / ((kept.sum() if weights is None else (weights * kept).sum()) if reduction == "mean" else 1)


def problem(rows=37, columns=24, vocabulary=101, ignored=5):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, columns, generator=generator).requires_grad_()
    weight = torch.randn(vocabulary, columns, generator=generator).requires_grad_()
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    labels[::ignored] = -100
    return hidden, weight, labels, torch.randn(vocabulary, generator=generator).requires_grad_()


@pytest.mark.parametrize("at_a_time", [16, 1000])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", OPTIONS)
def test_is_the_formula_written_out(name, reduction, with_bias, at_a_time, monkeypatch):
    """Loss and gradients of all that may have one, in one part and in three."""
    monkeypatch.setattr(reference, "rows_at_a_time", lambda vocabulary: at_a_time)
    hidden, weight, labels, bias = problem()
    options = dict(OPTIONS[name])
    if "token_weights" in options:
        options["token_weights"] = torch.rand(len(labels), generator=torch.Generator().manual_seed(1))
    inputs = [hidden, weight, bias] if with_bias else [hidden, weight]
    bias = bias if with_bias else None
    found = linear_cross_entropy(hidden, weight, labels, bias, reduction=reduction, **options)
    expected = written_out(hidden, weight, labels, bias, reduction, options)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    above = torch.rand(expected.shape, generator=torch.Generator().manual_seed(2))
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, above), torch.autograd.grad(expected, inputs, above), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 9), st.integers(1, 5), st.integers(2, 40), st.data())
def test_any_rows_may_be_ignored(rows, columns, vocabulary, data):
    """None, some, all; without a row the mean is NaN, as in torch."""
    labels = torch.tensor(data.draw(st.lists(st.integers(-1, vocabulary - 1), min_size=rows, max_size=rows))).long()
    labels[labels == -1] = -100
    hidden = torch.randn(rows, columns, requires_grad=True)
    weight = torch.randn(vocabulary, columns)
    for reduction in ("mean", "sum", "none"):
        found = linear_cross_entropy(hidden, weight, labels, reduction=reduction)
        expected = functional.cross_entropy(hidden @ weight.T, labels, reduction=reduction)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)])
def test_only_the_gradients_that_are_wanted_are_computed(wanted):
    """A frozen head gets none, a frozen body neither."""
    hidden, weight, labels, _ = problem()
    hidden.requires_grad_(wanted[0])
    weight.requires_grad_(wanted[1])
    linear_cross_entropy(hidden, weight, labels).backward()
    assert (hidden.grad is not None, weight.grad is not None) == wanted


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_halves_are_multiplied_as_halves_and_summed_in_float32(dtype):
    """The logits are rounded as the head would round them; the rest is float32."""
    hidden, weight, labels, _ = problem()
    half, frozen = hidden.detach().to(dtype).requires_grad_(), weight.detach().to(dtype)
    found = linear_cross_entropy(half, frozen, labels)
    expected = functional.cross_entropy((half @ frozen.T).float(), labels)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (ours,), (theirs,) = torch.autograd.grad(found, half), torch.autograd.grad(expected, half)
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=2e-3)


def arguments(hidden, weight, labels, bias, of_weight=True):
    weights = torch.rand(len(labels))
    return (hidden.detach(), weight.detach(), bias, labels, weights, -100, 0.1, 0.01, 3.0, True, of_weight)


def test_passes_torchs_own_check_of_operations():
    """Schema, fake, tracing."""
    hidden, weight, labels, bias = problem()
    torch.library.opcheck(linear_cross_entropy_op, arguments(hidden, weight, labels, bias.detach()))
    torch.library.opcheck(linear_cross_entropy_op, arguments(hidden, weight, labels, None, of_weight=False))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's tracer does it
def test_compiles_whole():
    """One graph, forward and backward."""
    torch.compiler.reset()
    hidden, weight, labels, _ = problem()
    compiled = torch.compile(
        lambda h, w: linear_cross_entropy(h, w, labels, label_smoothing=0.1), backend="aot_eager", fullgraph=True
    )
    found = torch.autograd.grad(compiled(hidden, weight), [hidden, weight])
    expected = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels, label_smoothing=0.1), [hidden, weight])
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_takes_a_fifteenth_of_the_memory():
    """4,096 rows and 32,000 words: what is allocated besides the gradients, against three matrices of logits."""
    rows, columns, vocabulary = 4096, 8, 32_000
    meta = torch.empty(rows, columns, device="meta"), torch.empty(vocabulary, columns, device="meta")
    labels = torch.empty(rows, dtype=torch.int64, device="meta")
    needed = workspace_bytes("linear_cross_entropy", *meta, None, labels, None, -100, 0.0, 0.0, 0.0, True, True)
    assert needed <= 3 * 4 * rows * vocabulary / 15


@pytest.mark.parametrize("trained", [False, True])
def test_works_in_what_it_declares(measured_bytes, trained):
    """Measured by torch's allocator; the declaration is enough, and not more than twice what was taken."""
    hidden, weight, labels, _ = problem(rows=600, columns=32, vocabulary=30_000)
    call = (hidden.detach(), weight.detach(), None, labels, None, -100, 0.0, 0.0, 0.0, True, trained)
    measured = measured_bytes(lambda: linear_cross_entropy_op(*call))
    assert measured <= workspace_bytes("linear_cross_entropy", *call) <= 2 * measured + 2**16


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"reduction": "average"}, "`reduction` (='average') must be mean, sum or none."),
        ({"label_smoothing": 1.5}, "`label_smoothing` (=1.5) must be from 0 to 1."),
        ({"z_loss": -1.0}, "`z_loss` (=-1.0) must be 0 or more."),
        ({"softcap": float("nan")}, "`softcap` (=nan) must be 0 or more."),
    ],
)
def test_an_option_out_of_range_is_refused(changed, said):
    """By name and value."""
    hidden, weight, labels, _ = problem()
    with pytest.raises(InvalidConfigError) as caught:
        linear_cross_entropy(hidden, weight, labels, **changed)
    assert str(caught.value) == said


def test_shapes_that_do_not_fit_are_refused():
    """By the argument that does not."""
    hidden, weight, labels, _ = problem()
    with pytest.raises(ShapeMismatchError, match="hidden"):
        linear_cross_entropy(hidden[:, 1:], weight, labels)
    with pytest.raises(ShapeMismatchError, match="labels"):
        linear_cross_entropy(hidden, weight, labels[1:])
    with pytest.raises(ShapeMismatchError, match="token_weights"):
        linear_cross_entropy(hidden, weight, labels, token_weights=torch.ones(3))
