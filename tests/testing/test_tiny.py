"""The tiny tokenizer keeps any text, the tiny Llama is the same every time, and both survive a folder."""

from __future__ import annotations

import hashlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.testing.tiny import save_tiny_model, tiny_llama, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def weights(model) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


@given(st.text())
def test_any_text_survives_the_tokenizer(text):
    """Bytes are its alphabet."""
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


def test_common_words_are_one_token():
    """So that tokens can straddle a cut."""
    assert [len(TOKENIZER(text)["input_ids"]) for text in (" Python", " Pyth", "\n\n")] == [1, 1, 1]


def test_special_tokens_are_one_token_and_padding_is_the_end_token():
    """The trap of SmolLM2."""
    assert TOKENIZER("<|im_start|>a<|im_end|>")["input_ids"] == [1, TOKENIZER.convert_tokens_to_ids("a"), 2]
    assert TOKENIZER.pad_token_id == TOKENIZER.eos_token_id == 2


def test_the_weights_are_a_function_of_the_seed():
    """Whatever was drawn before."""
    torch.manual_seed(1)
    first = weights(tiny_llama(seed=5))
    torch.manual_seed(2)
    assert weights(tiny_llama(seed=5)) == first
    assert weights(tiny_llama(seed=6)) != first


def test_building_a_model_leaves_global_randomness_alone():
    """A test that draws afterwards draws the same."""
    torch.manual_seed(3)  # not the state that another model would have left
    before = torch.get_rng_state()
    tiny_llama()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_has_gqa_tied_embeddings_and_the_tokenizers_vocabulary():
    """The shape of its large relatives."""
    model = tiny_llama()
    assert model.config.vocab_size == len(TOKENIZER)
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tiny_llama(num_hidden_layers=1).num_parameters() < model.num_parameters() < 120_000


def test_the_model_learns():
    """A few steps on one text lower its loss."""
    model = tiny_llama().train()
    ids = torch.tensor([TOKENIZER("What does the function return?")["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_a_saved_model_loads_with_plain_transformers(tmp_path):
    """Weights, tokens and template are the same; two folders of one seed are equal."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_tiny_model(tmp_path / "a", seed=5)
    assert weights(AutoModelForCausalLM.from_pretrained(folder)) == weights(tiny_llama(seed=5))
    loaded = AutoTokenizer.from_pretrained(folder)
    text = "What does the <|im_start|> do?\n\n"
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.chat_template == TOKENIZER.chat_template
    other = save_tiny_model(tmp_path / "b", seed=5)
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
