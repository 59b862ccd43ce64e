"""Greedy answers of a model to a question, asked the way it was trained."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import InvalidConfigError
from bedstone.train.data import ChatRenderer, format_of, padding_id
from bedstone.train.models import longest_input

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bedstone.train.config import TrainConfig


@torch.inference_mode()
def answer(
    model: Any, tokenizer: PreTrainedTokenizerBase, question: str, *, config: TrainConfig, max_new_tokens: int
) -> str:
    """Return the model's greedy answer, without special tokens and surrounding white space.

    Args:
        model: A causal language model of transformers, or one that peft wraps; its mode is put back afterwards.
        tokenizer: Its tokenizer.
        question: What a user would type.
        config: The format of its first data set decides how the question is put.
        max_new_tokens: Where to stop at the latest, at least 1; the model's own limit may come first.

    Raises:
        InvalidConfigError: The question alone fills what the model can read.
    """
    text = format_of(config.datasets[0]).question(question, ChatRenderer(tokenizer))
    prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt").to(model.device)
    room = _room(model, prompt["input_ids"].shape[1])
    training = model.training
    model.eval()
    try:
        output = model.generate(**prompt, generation_config=_greedy(model, tokenizer, min(max_new_tokens, room)))
    finally:
        model.train(training)
    return str(tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def _room(model: Any, asked: int) -> int:
    limit = longest_input(model)
    if limit is None:
        return sys.maxsize
    if asked >= limit:
        message = f"The question has {asked} tokens as the model reads it, and the model reads at most {limit}."
        raise InvalidConfigError(message, argument="question", value=asked, remedy="Ask a shorter one.")
    return limit - asked


def _greedy(model: Any, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> Any:
    from transformers import GenerationConfig

    # Of the model's own settings only where it stops: sampling would answer differently each time.
    own: Any = model.generation_config.eos_token_id
    ends: list[Any] = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=sorted({int(end) for end in ends if end is not None}),
        pad_token_id=padding_id(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
    )
