"""KL, agreement and perplexity of two models' logits are what torch and a calculation by hand say, for any text length."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from bedstone.core.errors import InvalidConfigError, ShapeMismatchError
from bedstone.quant import compare
from bedstone.quant.compare import IGNORED, Divergence, logit_divergence


def some_logits(tokens, vocabulary, seed=0, scale=3.0):
    """Two sets of logits that differ, and labels."""
    generator = torch.Generator().manual_seed(seed)
    reference = scale * torch.randn(tokens, vocabulary, generator=generator)
    other = reference + torch.randn(tokens, vocabulary, generator=generator)
    return reference, other, torch.randint(vocabulary, (tokens,), generator=generator)


def test_two_tokens_by_hand():
    """With p = (1/2, 1/4, 1/4) and q = (1/4, 1/2, 1/4), KL = 1/2 ln 2 - 1/4 ln 2 = ln 2 / 4."""
    p, q = torch.tensor([[0.5, 0.25, 0.25]] * 2).log(), torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]).log()
    found = logit_divergence(p, q, torch.tensor([0, 2]))
    assert found.kl.tolist() == pytest.approx([math.log(2) / 4, 0.0], abs=1e-7)
    assert found.agrees.tolist() == [0.0, 1.0]
    assert found.mean_kl == pytest.approx(math.log(2) / 8)
    assert found.agreement == 0.5
    assert found.reference_perplexity == pytest.approx(math.sqrt(2 * 4))
    assert found.perplexity == pytest.approx(4.0)


@given(tokens=st.integers(1, 40), vocabulary=st.integers(1, 300), seed=st.integers(0, 2**31))
def test_equals_torch(tokens, vocabulary, seed):
    """Parity with `functional.kl_div` and `cross_entropy` in float64; float32 logits leave an error of 1e-5."""
    reference, other, labels = some_logits(tokens, vocabulary, seed)
    found = logit_divergence(reference, other, labels)
    log_p, log_q = reference.double().log_softmax(-1), other.double().log_softmax(-1)
    kl = functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    assert found.mean_kl == pytest.approx(kl.item(), abs=1e-5)
    for perplexity, logits in ((found.reference_perplexity, reference), (found.perplexity, other)):
        assert math.log(perplexity) == pytest.approx(functional.cross_entropy(logits.double(), labels).item(), abs=1e-5)
    assert found.agreement == (reference.argmax(-1) == other.argmax(-1)).double().mean().item()


@given(seed=st.integers(0, 2**31), scale=st.floats(0.0, 100.0))
def test_a_model_is_no_distance_from_itself(seed, scale):
    """KL is exactly 0 and every token agrees; KL is never negative."""
    reference, other, labels = some_logits(7, 50, seed, scale)
    same = logit_divergence(reference, reference.clone(), labels)
    assert same.kl.tolist() == [0.0] * 7
    assert same.agreement == 1.0
    assert same.perplexity == same.reference_perplexity
    assert (logit_divergence(reference, other, labels).kl >= 0).all()


def test_chunks_change_nothing(monkeypatch):
    """However few tokens are looked at together, each token has the same numbers."""
    reference, other, labels = some_logits(23, 64)
    whole = logit_divergence(reference, other, labels)
    monkeypatch.setattr(compare, "_CHUNK_ELEMENTS", 130)  # two tokens
    cut = logit_divergence(reference, other, labels)
    for name in ("kl", "agrees", "reference_nll", "nll"):
        assert torch.equal(getattr(cut, name), getattr(whole, name))


def test_never_holds_more_than_a_chunk():
    """Beside the logits that the caller has, peak memory is that of a few tokens, not of the text."""
    vocabulary = 1 << 15
    reference, other, labels = some_logits(1024, vocabulary, scale=1.0)
    own = {part.untyped_storage().data_ptr() for part in (reference, other, labels)}
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **kwargs or {})
            if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in own:
                sizes.append(result.untyped_storage().nbytes())
            return result

    with Sizes():
        logit_divergence(reference, other, labels)
    assert max(sizes) <= 4 * compare._CHUNK_ELEMENTS


def test_counts_only_the_labels_that_count():
    """-100 leaves a token out, as in torch's cross entropy."""
    reference, other, labels = some_logits(6, 20)
    labels[[0, 3]] = IGNORED
    keep = labels != IGNORED
    found = logit_divergence(reference, other, labels)
    alone = logit_divergence(reference[keep], other[keep], labels[keep])
    assert found.tokens == 4
    assert torch.equal(found.kl, alone.kl)
    assert math.log(found.perplexity) == pytest.approx(functional.cross_entropy(other, labels).item(), abs=1e-6)


def test_takes_batches_and_half_precision():
    """`[batch, tokens, V]` in bfloat16 is computed in float32."""
    reference, other, labels = (part.reshape(2, 6, *part.shape[1:]) for part in some_logits(12, 20))
    found = logit_divergence(reference.bfloat16(), other.bfloat16(), labels)
    exact = logit_divergence(reference.bfloat16().float(), other.bfloat16().float(), labels)
    assert torch.equal(found.kl, exact.kl)


def test_impossible_tokens():
    """A token that both rule out adds nothing; one that only the quantized model rules out costs infinity."""
    reference = torch.tensor([[0.0, 0.0, -math.inf]])
    assert logit_divergence(reference, reference, torch.tensor([0])).mean_kl == 0.0
    found = logit_divergence(reference, torch.tensor([[0.0, -math.inf, 0.0]]), torch.tensor([1]))
    assert (found.mean_kl, found.perplexity) == (math.inf, math.inf)


def test_pieces_join_to_a_whole():
    """A text may be measured window by window."""
    reference, other, labels = some_logits(10, 30)
    whole = logit_divergence(reference, other, labels)
    pieces = [logit_divergence(reference[a:b], other[a:b], labels[a:b]) for a, b in ((0, 3), (3, 10))]
    assert torch.equal(Divergence.joined(pieces).kl, whole.kl)
    assert whole.kl_quantile(1.0) == whole.kl.max().item()
    assert whole.kl_error == pytest.approx(whole.kl.std().item() / math.sqrt(10))
    assert math.isnan(pieces[0].joined([logit_divergence(reference[:1], other[:1], labels[:1])]).kl_error)


def test_refuses_shapes_that_do_not_fit():
    """The argument, what was expected, what came."""
    reference, other, labels = some_logits(4, 8)
    with pytest.raises(ShapeMismatchError) as caught:
        logit_divergence(reference, other[:3], labels)
    assert (caught.value.expected, caught.value.actual) == ((4, 8), (3, 8))
    with pytest.raises(ShapeMismatchError) as caught:
        logit_divergence(reference, other, labels[:3])
    assert (caught.value.expected, caught.value.actual) == ((4,), (3,))


@pytest.mark.parametrize("label", [-1, 8])
def test_refuses_a_label_that_is_no_token(label):
    """Nothing outside of the vocabulary, and not every negative number means "do not count"."""
    reference, other, labels = some_logits(4, 8)
    labels[2] = label
    with pytest.raises(InvalidConfigError) as caught:
        logit_divergence(reference, other, labels)
    assert str(caught.value) == (f"`labels` holds {label}; a label is 0 to 7, or -100 for a token that is not counted.")


def test_refuses_to_compare_nothing():
    """No token, no number."""
    reference, other, labels = some_logits(4, 8)
    with pytest.raises(InvalidConfigError) as caught:
        logit_divergence(reference, other, labels.fill_(IGNORED))
    assert str(caught.value) == "`labels` must hold at least one token that is counted; all 4 are -100 or absent."
