"""How far a quantized model's predictions are from those of the model it was made from.

For each token of a text both models give logits over the vocabulary; with `p` and `q` their softmax, reference and quantized:

    KL(p || q)      sum over v of p(v) * (log p(v) - log q(v)), in nats: what the quantized model loses, 0 when they agree
    top-1           whether both rank the same token first
    perplexity      exp of the mean of -log q(y), where y is the token that really came; of the reference with p

KL and agreement need no truth and see every change. Perplexity sees only the token that came: a damaged model may even
gain on a text, so it is shown beside the other two and never alone. None of them says anything about another text.

References:
    Kullback, Leibler: On Information and Sufficiency, 1951, https://doi.org/10.1214/aoms/1177729694.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bedstone.core.errors import InvalidConfigError, ShapeMismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

IGNORED = -100
"""The label of a token that is not counted, as in torch's cross entropy."""

_CHUNK_ELEMENTS = 1 << 22
"""Logits looked at together; a handful of temporaries of 16 MiB each, whatever the length of the text."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Two models compared on the tokens of a text, one number a token each; all tensors are float64 `[tokens]` on the CPU.

    Attributes:
        kl: KL(reference || quantized) in nats.
        agrees: 1 where both rank the same token first, else 0.
        reference_nll: -log of the probability that the reference gave to the token that came, in nats.
        nll: The same of the quantized model.
    """

    kl: torch.Tensor
    agrees: torch.Tensor
    reference_nll: torch.Tensor
    nll: torch.Tensor

    @property
    def tokens(self) -> int:
        """How many tokens were compared."""
        return self.kl.numel()

    @property
    def mean_kl(self) -> float:
        """Nats a token."""
        return self.kl.mean().item()

    @property
    def kl_error(self) -> float:
        """The standard error of `mean_kl`, as if tokens were independent; NaN for one token."""
        return self.kl.std().item() / math.sqrt(self.tokens) if self.tokens > 1 else math.nan

    @property
    def agreement(self) -> float:
        """The share of tokens that both rank first, 0 to 1."""
        return self.agrees.mean().item()

    @property
    def reference_perplexity(self) -> float:
        """Perplexity of the reference; infinite beyond what a float holds."""
        return self.reference_nll.mean().exp().item()

    @property
    def perplexity(self) -> float:
        """Perplexity of the quantized model; infinite beyond what a float holds."""
        return self.nll.mean().exp().item()

    def kl_quantile(self, share: float) -> float:
        """Return the KL that a share of the tokens stays below.

        Args:
            share: 0 to 1; 0.5 is the median.
        """
        return torch.quantile(self.kl, share).item()

    @classmethod
    def joined(cls, pieces: Sequence[Divergence]) -> Divergence:
        """Return several pieces of text as one.

        Args:
            pieces: At least one.
        """
        fields = ("kl", "agrees", "reference_nll", "nll")
        return cls(*(torch.cat([getattr(piece, name) for piece in pieces]) for name in fields))


@torch.no_grad()
def logit_divergence(reference_logits: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> Divergence:
    """Compare the logits of two models on the same tokens, a few tokens at a time.

    Args:
        reference_logits: `[..., V]`, any floating dtype and device; computed in at least float32.
        logits: Those of the quantized model, of the same shape.
        labels: Whole numbers `[...]`: the token that came at each place, so already shifted by one; `IGNORED` (-100) where a
            place is not counted.

    Raises:
        ShapeMismatchError: The shapes do not fit.
        InvalidConfigError: A label is neither a token nor `IGNORED`, or all are ignored.

    >>> reference = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log()
    >>> quantized = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()
    >>> found = logit_divergence(reference, quantized, torch.tensor([0, 1]))
    >>> [round(kl, 4) for kl in found.kl.tolist()]  # the second is 0.5 ln(0.5 / 0.2) + 0.5 ln(0.5 / 0.8)
    [0.0, 0.2231]
    >>> round(found.reference_perplexity, 4), round(found.perplexity, 4)  # 1 / sqrt(0.9 * 0.5), 1 / sqrt(0.9 * 0.8)
    (1.4907, 1.1785)
    """
    _check(reference_logits, logits, labels)
    vocabulary = logits.shape[-1]
    places = labels.reshape(-1).to(logits.device)
    counted = places.ne(IGNORED).nonzero().squeeze(1)
    if not counted.numel():
        message = (
            f"`labels` must hold at least one token that is counted; all {labels.numel()} are {IGNORED} or absent."
        )
        raise InvalidConfigError(message, argument="labels", value=labels.numel())
    flat_reference, flat = reference_logits.reshape(-1, vocabulary), logits.reshape(-1, vocabulary)
    pieces = counted.split(max(1, _CHUNK_ELEMENTS // vocabulary))
    return Divergence.joined(
        [_compare(flat_reference[some.to(flat_reference.device)], flat[some], places[some]) for some in pieces]
    )


def _check(reference_logits: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
    if reference_logits.shape != logits.shape:
        raise ShapeMismatchError(expected=tuple(reference_logits.shape), actual=tuple(logits.shape), argument="logits")
    if labels.shape != logits.shape[:-1]:
        raise ShapeMismatchError(expected=tuple(logits.shape[:-1]), actual=tuple(labels.shape), argument="labels")
    vocabulary = logits.shape[-1]
    wrong = labels[((labels < 0) & (labels != IGNORED)) | (labels >= vocabulary)]
    if wrong.numel():
        value = int(wrong.flatten()[0])
        message = (
            f"`labels` holds {value}; a label is 0 to {vocabulary - 1}, or {IGNORED} for a token that is not counted."
        )
        raise InvalidConfigError(message, argument="labels", value=value)


def _compare(reference: torch.Tensor, quantized: torch.Tensor, labels: torch.Tensor) -> Divergence:
    """Compare `[tokens, V]` logits that are few enough to be held several times over."""
    log_p, log_q = _log_softmax(reference), _log_softmax(quantized.to(reference.device))
    # A token of probability 0 adds 0, also where both logarithms are minus infinity.
    terms = torch.where(log_p == -math.inf, 0.0, log_p.exp() * (log_p - log_q))
    chosen = labels.to(reference.device).unsqueeze(1)
    per_token = (
        terms.sum(-1).clamp_min(0.0),  # rounding may leave -1e-9
        reference.argmax(-1) == quantized.argmax(-1).to(reference.device),
        -log_p.gather(1, chosen).squeeze(1),
        -log_q.gather(1, chosen).squeeze(1),
    )
    return Divergence(*(values.to("cpu", torch.float64) for values in per_token))


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
