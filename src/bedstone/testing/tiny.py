"""A real tokenizer and a real Llama, small enough for a unit test and built in code: no download, no fixture file.

The tokenizer is a byte-level BPE, so any text survives it, with a few merges, so tokens can straddle a cut. It shares
the trap of SmolLM2 on purpose: its padding token is its end-of-sequence token. The model is a two-layer
`LlamaForCausalLM` with grouped-query attention and tied embeddings, the shape of its large relatives.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import os

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The chat template of `tiny_tokenizer`: ChatML, without a system turn of its own."""

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WORDS = (
    "the",
    "instruction",
    "response",
    "user",
    "assistant",
    "system",
    "What",
    "does",
    "Return",
    "in",
    "Python",
    "a",
    "of",
)
_SPACE, _NEWLINE = "\u0120", "\u010a"  # how byte-level BPE writes a space and a newline


def tiny_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    r"""Return a byte-level BPE tokenizer of a few hundred tokens; the same one every time.

    Args:
        chat_template: A Jinja template, or `None` for a tokenizer of a model without one.

    >>> tokenizer = tiny_tokenizer()
    >>> tokenizer.decode(tokenizer("naïve \U0001f642\n")["input_ids"])
    'naïve \U0001f642\n'
    >>> tokenizer.pad_token == tokenizer.eos_token
    True
    """
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    merges = _merges()
    names = [*_SPECIAL, *sorted(ByteLevel.alphabet()), *(left + right for left, right in merges)]
    backend = Tokenizer(BPE({name: i for i, name in enumerate(names)}, merges))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = ByteLevelDecoder()  # pyright: ignore[reportAttributeAccessIssue]
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in _SPECIAL])
    start, end = _SPECIAL[1:]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        unk_token=_SPECIAL[0],
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


def tiny_llama(seed: int = 0, **config: Any) -> LlamaForCausalLM:
    """Return a two-layer Llama of about 100,000 parameters in fp32 on the CPU, in evaluation mode.

    The weights are a function of `seed` alone, and the global random generator stays where it was.

    Args:
        seed: Seed of the weights.
        config: Fields of `LlamaConfig` to replace, for example `num_hidden_layers=1`.

    >>> model = tiny_llama()
    >>> model.num_parameters() < 120_000
    True
    >>> model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, model.config.vocab_size)
    True
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    start, end = (_SPECIAL.index(name) for name in _SPECIAL[1:])
    shape: dict[str, Any] = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed every GPU
        return LlamaForCausalLM(LlamaConfig(**(shape | config))).eval()


def save_tiny_model(folder: str | os.PathLike[str], seed: int = 0, **config: Any) -> Path:
    """Write `tiny_llama` and `tiny_tokenizer` as a Hugging Face folder and return it.

    Args:
        folder: Where to; made if it is missing.
        seed: Seed of the weights.
        config: As for `tiny_llama`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(path.name for path in save_tiny_model(folder).glob("*.json"))
    ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json']
    """
    path = Path(folder)
    tiny_tokenizer().save_pretrained(path)
    tiny_llama(seed, **config).save_pretrained(path)
    return path


def _merges() -> list[tuple[str, str]]:
    """The merges that build each of `_WORDS`, with the space before it, from its letters; and blank lines."""
    merges: dict[tuple[str, str], None] = {(_NEWLINE, _NEWLINE): None}
    for word in _WORDS:
        left = _SPACE
        for letter in word:
            merges[left, letter] = None
            left += letter
    return list(merges)
