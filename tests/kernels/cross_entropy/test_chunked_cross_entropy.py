"""The loss of logits that exist is the formula written out, for every option, in a few MiB besides the logits and their gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bedstone.core.errors import DimensionMismatchError, InvalidConfigError, ShapeMismatchError
from bedstone.kernels import chunked_cross_entropy, workspace_bytes
from bedstone.kernels.cross_entropy import reference
from bedstone.kernels.cross_entropy.from_logits import chunked_cross_entropy_op

OPTIONS = {
    "plain": {},
    "smoothing": {"label_smoothing": 0.1},
    "z-loss": {"z_loss": 0.01},
    "softcap": {"softcap": 4.0},
    "weights": {"token_weights": True},
    "all": {"label_smoothing": 0.2, "z_loss": 0.03, "softcap": 3.0, "token_weights": True},
}


def written_out(logits, labels, reduction="mean", label_smoothing=0.0, z_loss=0.0, softcap=0.0, token_weights=None):
    """As in the papers, with torch's own cross-entropy."""
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
    kept = labels != -100
    losses = losses + z_loss * logits.logsumexp(1).square() * kept
    losses = losses if token_weights is None else losses * token_weights
    if reduction == "none":
        return losses
    count = kept.sum() if token_weights is None else (token_weights * kept).sum()
    return losses.sum() / (count if reduction == "mean" else 1)


def problem(rows=37, vocabulary=101, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(rows, vocabulary, generator=generator)).to(dtype).requires_grad_()
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    labels[::5] = -100
    return logits, labels, torch.rand(rows, generator=generator)


@pytest.mark.parametrize("at_a_time", [16, 1000])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", OPTIONS)
def test_is_the_formula_written_out(name, reduction, at_a_time, monkeypatch):
    """Loss and gradient, in one part and in three; a second backward pass gives the same."""
    monkeypatch.setattr(reference, "rows_at_a_time", lambda vocabulary: at_a_time)
    logits, labels, weights = problem()
    options = OPTIONS[name] | ({"token_weights": weights} if "token_weights" in OPTIONS[name] else {})
    found = chunked_cross_entropy(logits, labels, reduction=reduction, **options)
    expected = written_out(logits, labels, reduction, **options)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    above = torch.rand(expected.shape, generator=torch.Generator().manual_seed(2))
    (ours,) = torch.autograd.grad(found, logits, above, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, logits, above)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert torch.equal(ours, torch.autograd.grad(found, logits, above)[0])


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_are_those_of_differences(name):
    """In float64, which is kept."""
    logits, labels, weights = problem(rows=6, vocabulary=5, dtype=torch.float64)
    options = OPTIONS[name] | ({"token_weights": weights} if "token_weights" in OPTIONS[name] else {})
    assert torch.autograd.gradcheck(lambda z: chunked_cross_entropy(z, labels, **options), logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_halves_are_computed_in_float32(dtype):
    """Equal to widening all logits first; the gradient is rounded at the end."""
    logits, labels, _ = problem(dtype=dtype)
    found, expected = chunked_cross_entropy(logits, labels), functional.cross_entropy(logits.float(), labels)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    (ours,), (theirs,) = torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("kept", [0, 1, 37])
def test_any_rows_may_be_ignored(kept):
    """All of them, none; what is in an ignored row does not matter. Without a row the mean is NaN, as in torch."""
    logits, labels, _ = problem()
    labels = torch.arange(37)
    labels[kept:] = -100
    wild = logits.detach().clone()
    wild[kept:] = float("nan")
    wild.requires_grad_()
    for reduction in ("mean", "sum", "none"):
        found = chunked_cross_entropy(wild, labels, reduction=reduction)
        torch.testing.assert_close(found, functional.cross_entropy(logits, labels, reduction=reduction), equal_nan=True)
    (grad,) = torch.autograd.grad(chunked_cross_entropy(wild, labels, reduction="sum"), wild)
    assert not grad[kept:].any()


def test_passes_torchs_own_check_of_operations():
    """Schema, fake, tracing."""
    logits, labels, weights = problem()
    for gradient in (False, True):
        torch.library.opcheck(
            chunked_cross_entropy_op, (logits.detach(), labels, weights, -100, 0.1, 0.01, 3.0, gradient)
        )


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's tracer does it
def test_compiles_whole():
    """One graph, forward and backward."""
    torch.compiler.reset()
    logits, labels, _ = problem()
    compiled = torch.compile(lambda z: chunked_cross_entropy(z, labels), backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(logits), logits)
    assert torch.equal(found[0], torch.autograd.grad(chunked_cross_entropy(logits, labels), logits)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_forward_and_backward_keep_nothing_but_the_logits(measured_bytes, dtype):
    """Besides the gradient at most one buffer of rows, which is 32 MiB of float32: torch keeps a matrix of the size of the logits."""
    logits, labels, _ = problem(rows=1500, vocabulary=30_000, dtype=dtype)
    matrix = 4 * logits.numel()

    def both(loss):
        return measured_bytes(lambda: torch.autograd.grad(loss(), logits))

    taken = both(lambda: chunked_cross_entropy(logits, labels))
    assert taken < matrix / 3
    assert both(lambda: functional.cross_entropy(logits.float(), labels)) >= matrix
    call = (logits.detach(), labels, None, -100, 0.0, 0.0, 0.0, True)
    measured = measured_bytes(lambda: chunked_cross_entropy_op(*call))
    assert measured <= workspace_bytes("chunked_cross_entropy", *call) <= 2 * measured + 2**16


def test_refuses_what_does_not_fit():
    """By name and value."""
    logits, labels, weights = problem()
    with pytest.raises(DimensionMismatchError, match="logits"):
        chunked_cross_entropy(logits[0], labels)
    with pytest.raises(ShapeMismatchError, match="labels"):
        chunked_cross_entropy(logits, labels[1:])
    with pytest.raises(ShapeMismatchError, match="token_weights"):
        chunked_cross_entropy(logits, labels, token_weights=weights[1:])
    with pytest.raises(InvalidConfigError, match=r"`z_loss` \(=-1.0\) must be 0 or more."):
        chunked_cross_entropy(logits, labels, z_loss=-1.0)
