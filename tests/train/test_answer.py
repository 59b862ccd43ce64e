"""A question that the model cannot read is refused; an answer ends where the model's reach does."""

from __future__ import annotations

import pytest

from bedstone.core.errors import InvalidConfigError
from bedstone.testing.tiny import tiny_llama, tiny_tokenizer
from bedstone.train.answer import answer
from bedstone.train.config import parse_config


@pytest.fixture
def ask(config):
    """A function that asks a model which reads at most `limit` tokens."""

    def ask(question, limit, max_new_tokens=50):
        model = tiny_llama()
        model.config.max_position_embeddings = limit
        return answer(model, tiny_tokenizer(), question, config=parse_config(config()), max_new_tokens=max_new_tokens)

    return ask


def test_a_question_that_fills_the_model_is_refused(ask):
    """With both numbers."""
    with pytest.raises(InvalidConfigError) as caught:
        ask("x" * 200, limit=128)
    assert str(caught.value).startswith("The question has ")
    assert str(caught.value).endswith(
        " tokens as the model reads it, and the model reads at most 128. Ask a shorter one."
    )


def test_an_answer_stops_at_the_limit_of_the_model(ask):
    """One token of room is one token of answer."""
    tokens = len(tiny_tokenizer()(ask_text("Hi"), add_special_tokens=False)["input_ids"])
    assert len(ask("Hi", limit=tokens + 1)) <= 1
    assert len(ask("Hi", limit=tokens + 50)) >= len(ask("Hi", limit=tokens + 1))


def ask_text(question):
    from bedstone.train.data import instruction_prompt

    return instruction_prompt(question)
