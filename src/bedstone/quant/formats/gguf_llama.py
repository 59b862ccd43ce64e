"""A Llama of transformers in the words of GGUF: names, order of rows, shape of the model, tokenizer.

GGUF keeps the rows of each head of `attn_q` and `attn_k` in rotary pairs (0, 1), (2, 3), ...; transformers keeps all first
halves of the pairs before all second ones. Rows move whole, so packed rows move as they are.

References:
    The GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
    `conversion/llama.py` in https://github.com/ggml-org/llama.cpp.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import InvalidConfigError, UnsupportedError

if TYPE_CHECKING:
    import torch

ARCHITECTURE = "llama"
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_BACK = {short: long for long, short in _NAMES.items()}
_LONG = re.compile(r"(?:model\.layers\.(?P<layer>\d+)\.)?(?P<module>.+)\.(?P<kind>weight|bias)")
_SHORT = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<module>.+)\.(?P<kind>weight|bias)")
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # token types


def gguf_name(name: str) -> str:
    """Return what GGUF calls a parameter of transformers' Llama.

    Raises:
        UnsupportedError: A Llama has no such parameter.

    >>> gguf_name("model.layers.3.self_attn.q_proj.weight"), gguf_name("lm_head.weight")
    ('blk.3.attn_q.weight', 'output.weight')
    """
    found = _LONG.fullmatch(name)
    if not found or found["module"] not in _NAMES:
        message = f"The parameter {name!r} has no place in a GGUF file of a Llama."
        raise UnsupportedError(message, feature="gguf", remedy="Merge adapters first, and export the plain model.")
    layer = f"blk.{found['layer']}." if found["layer"] else ""
    return f"{layer}{_NAMES[found['module']]}.{found['kind']}"


def transformers_name(name: str) -> str:
    """Return what transformers' Llama calls a tensor of GGUF.

    Raises:
        UnsupportedError: A Llama has no such tensor.

    >>> transformers_name("blk.3.attn_q.weight")
    'model.layers.3.self_attn.q_proj.weight'
    """
    found = _SHORT.fullmatch(name)
    if not found or found["module"] not in _BACK:
        message = f"The tensor {name!r} has no place in a Llama of transformers."
        raise UnsupportedError(message, feature="gguf", remedy="Read it with the package `gguf`.")
    layer = f"model.layers.{found['layer']}." if found["layer"] else ""
    return f"{layer}{_BACK[found['module']]}.{found['kind']}"


def heads_of(name: str, heads: int, kv_heads: int) -> int | None:
    """Return how many heads the rows of a tensor of GGUF belong to when they are in rotary pairs, else `None`.

    >>> heads_of("blk.0.attn_k.weight", 4, 2), heads_of("blk.0.attn_v.weight", 4, 2)
    (2, None)
    """
    module = name.rpartition(".")[0].rpartition(".")[2]
    return {"attn_q": heads, "attn_k": kv_heads}.get(module)


def to_pairs(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Return the rows of each head in rotary pairs, as GGUF has them.

    Args:
        rows: `[heads * head_dim, ...]`, or `[heads * head_dim]` of a bias; of bytes or of numbers.
        heads: How many heads.

    >>> import torch
    >>> to_pairs(torch.arange(8), 2).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(rows.shape)


def to_halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Return the rows of each head in two halves, as transformers has them; the reverse of `to_pairs`.

    >>> import torch
    >>> to_halves(to_pairs(torch.arange(8), 2), 2).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7]
    """
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(rows.shape)


def check_model(model: Any) -> None:
    """Refuse a model that GGUF's `llama` would not compute as transformers does.

    Raises:
        UnsupportedError: It is not a Llama, or one with scaled rotary positions or another activation.
    """
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", type(model).__name__)
    if kind != ARCHITECTURE or not hasattr(model, "lm_head"):
        message = f"Only Llama models with a language head are exported to GGUF, and this is {kind!r}."
        raise UnsupportedError(message, feature="gguf", remedy="Convert it with llama.cpp's own converter.")
    assert config is not None
    rope = config.rope_parameters.get("rope_type", "default")
    for option, value, known in (("rope_type", rope, "default"), ("hidden_act", config.hidden_act, "silu")):
        if value != known:
            message = f"The model has `{option}` (={value!r}); only {known!r} is exported to GGUF."
            raise UnsupportedError(message, feature="gguf", remedy="Convert it with llama.cpp's own converter.")


def write_shape(writer: Any, config: Any, name: str) -> None:
    """Write what llama.cpp must know to build the model.

    Args:
        writer: A `gguf.GGUFWriter`.
        config: A `LlamaConfig`.
        name: Of the model, for people.
    """
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def write_tokenizer(writer: Any, tokenizer: Any, vocab: int, pretokenizer: str | None) -> None:
    """Write a byte-level BPE tokenizer, or that there is none.

    Args:
        writer: A `gguf.GGUFWriter`.
        tokenizer: A fast tokenizer; `None` for a file that takes token numbers alone.
        vocab: Rows of the embedding; missing tokens are filled up.
        pretokenizer: llama.cpp's name for how text is cut before the merges; `None` finds `gpt-2` and `smollm`.

    Raises:
        UnsupportedError: The tokenizer is not a byte-level BPE, or its way to cut text has no name here.
        InvalidConfigError: It has more tokens than the embedding has rows.
    """
    if tokenizer is None:
        writer.add_tokenizer_model("none")
        return
    parts = tokenizer_parts(tokenizer, vocab)
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_tokenizer_pre(pretokenizer or pretokenizer_name(parts["pre_tokenizer"]))
    known = len(tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(list(range(known))) + [f"[PAD{i}]" for i in range(known, vocab)]
    writer.add_token_list(tokens)
    added, special = tokenizer.get_added_vocab(), set(tokenizer.all_special_ids)
    special |= {entry["id"] for entry in parts["added_tokens"] if entry["special"]}
    kinds = [
        _CONTROL if i in special else _USER_DEFINED if t in added else _NORMAL for i, t in enumerate(tokens[:known])
    ]
    writer.add_token_types(kinds + [_UNUSED] * (vocab - known))
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in parts["model"]["merges"]])
    for kind in ("bos", "eos", "unk", "pad"):
        if (number := getattr(tokenizer, f"{kind}_token_id")) is not None:
            getattr(writer, f"add_{kind}_token_id")(number)
    writer.add_add_bos_token(tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)
    writer.add_add_space_prefix(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def tokenizer_parts(tokenizer: Any, vocab: int) -> dict[str, Any]:
    """Return what a fast byte-level BPE tokenizer is made of.

    Raises:
        UnsupportedError: It is another kind of tokenizer.
        InvalidConfigError: It has more tokens than `vocab`.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = json.loads(backend.to_str()) if backend is not None else {"model": {"type": type(tokenizer).__name__}}
    if parts["model"]["type"] != "BPE" or (parts.get("decoder") or {}).get("type") != "ByteLevel":
        message = f"Only byte-level BPE tokenizers are exported to GGUF, and this is {parts['model']['type']!r}."
        raise UnsupportedError(message, feature="gguf", remedy="Pass tokenizer=None, or use llama.cpp's own converter.")
    if len(tokenizer) > vocab:
        message = f"`tokenizer` has {len(tokenizer)} tokens, and the embedding of the model has {vocab} rows."
        raise InvalidConfigError(message, argument="tokenizer", value=len(tokenizer))
    return parts


def pretokenizer_name(rule: dict[str, Any] | None) -> str:
    """Return llama.cpp's name for how a tokenizer cuts text before the merges.

    Raises:
        UnsupportedError: It is none of those known here.

    >>> pretokenizer_name({"type": "ByteLevel", "use_regex": True, "add_prefix_space": False})
    'gpt-2'
    """
    steps = (rule or {}).get("pretokenizers", [rule or {}])
    plain = (
        steps[-1].get("type") == "ByteLevel" and steps[-1].get("use_regex") and not steps[-1].get("add_prefix_space")
    )
    if plain and len(steps) == 1:
        return "gpt-2"
    if plain and steps[:-1] == [{"type": "Digits", "individual_digits": True}]:
        return "smollm"
    message = "The way in which this tokenizer cuts text before its merges has no name here."
    remedy = "Pass llama.cpp's name for it, `pretokenizer=...`; `get_vocab_base_pre` in its converter lists them."
    raise UnsupportedError(message, feature="gguf", remedy=remedy, rule=rule)
