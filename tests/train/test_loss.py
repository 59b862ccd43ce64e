"""The loss is transformers' own, however much of the logits is computed; batches add up token by token."""

from __future__ import annotations

import pytest
import torch

from bedstone.testing.tiny import tiny_llama
from bedstone.train.data import IGNORED, Example, collate
from bedstone.train.loss import loss_sum


@pytest.fixture(scope="module")
def model():
    return tiny_llama().eval()


def examples():
    generator = torch.Generator().manual_seed(7)
    made = []
    for length, prompt in ((9, 4), (5, 3), (12, 11), (7, 1)):
        ids = torch.randint(3, 200, (length,), generator=generator).tolist()
        made.append(Example(ids, [IGNORED] * prompt + ids[prompt:]))
    return made


def test_equals_the_loss_of_transformers(model):
    """Their mean over the same tokens, to rounding."""
    batch = collate(examples(), pad_id=0)
    ours = loss_sum(model, batch) / batch.trained_tokens
    theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_model_without_logits_to_keep_gives_the_same(model):
    """The full logits are the fallback that every model has."""

    class Plain(torch.nn.Module):
        def forward(self, input_ids, attention_mask, use_cache):
            return model(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

    batch = collate(examples(), pad_id=0)
    torch.testing.assert_close(loss_sum(Plain(), batch), loss_sum(model, batch), rtol=1e-6, atol=1e-6)


def test_padding_and_batching_change_nothing(model):
    """One batch of four equals four batches of one."""
    together = loss_sum(model, collate(examples(), pad_id=0))
    apart = sum(loss_sum(model, collate([example], pad_id=0)) for example in examples())
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-6)


def test_a_trained_first_token_has_nothing_to_predict_it_from(model):
    """`train_on_inputs` marks it; the loss leaves it out, as the token count does."""
    ids = [5, 6, 7]
    whole = collate([Example(ids, ids)], pad_id=0)
    rest = collate([Example(ids, [IGNORED, 6, 7])], pad_id=0)
    assert whole.trained_tokens == rest.trained_tokens == 2
    torch.testing.assert_close(loss_sum(model, whole), loss_sum(model, rest))
