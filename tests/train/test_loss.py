"""The loss is transformers' own, however much of the logits is computed; batches add up token by token."""

from __future__ import annotations

import inspect

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


def test_the_logits_never_exist_as_a_whole(model, monkeypatch):
    """The head itself is not called."""
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", None)
    loss = loss_sum(model, collate(examples(), pad_id=0))
    assert loss.isfinite()
    assert "forward" not in vars(model.lm_head)


@pytest.mark.parametrize("scaled", [False, True], ids=["capped", "scaled"])
def test_a_model_that_changes_its_logits_is_found_out(scaled):
    """The loss is that of what it returns, and the look cost no random number."""
    base = tiny_llama(attention_dropout=0.5).train()
    forward = type(base).forward

    class Changed(type(base)):
        def forward(self, **inputs):
            out = forward(self, **inputs)
            out.logits = out.logits * 0.5 if scaled else 3 * torch.tanh(out.logits / 3)
            return out

    Changed.forward.__signature__ = inspect.signature(forward)
    base.__class__ = Changed
    batch = collate(examples(), pad_id=0)
    torch.manual_seed(3)
    shifted = torch.nn.functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORED)
    logits = base(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), shifted.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    for _ in range(2):
        torch.manual_seed(3)
        torch.testing.assert_close(loss_sum(base, batch), expected)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("change", ["hook", "adapter", "packed"])
def test_a_head_that_is_no_plain_layer_is_called(model, change):
    """A hook sees its output, an adapter adds to it, a packed weight has its own product."""
    import bedstone as bs

    other = tiny_llama(tie_word_embeddings=False).eval()
    batch = collate(examples(), pad_id=0)
    seen = []
    if change == "hook":
        other.lm_head.register_forward_hook(lambda *args: seen.append(args[2].shape[-1]))
    elif change == "packed":
        bs.quantize(other, "int8")
    else:
        import peft

        other = peft.get_peft_model(other, peft.LoraConfig(target_modules=["lm_head"], init_lora_weights=False)).eval()
    theirs = other(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    torch.testing.assert_close(loss_sum(other, batch) / batch.trained_tokens, theirs, rtol=1e-6, atol=1e-6)
    assert len(seen) == (2 if change == "hook" else 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_autocast_decides_the_dtype_of_the_head(model, dtype):
    """As when the head itself is called."""
    batch = collate(examples(), pad_id=0)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        ours = loss_sum(model, batch) / batch.trained_tokens
        theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-6, atol=1e-6)


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
