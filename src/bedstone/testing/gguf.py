"""The tiny Llama as a GGUF file, written by the `gguf` package, so that conversion is tested against known weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bedstone.testing.tiny import tiny_llama, tiny_tokenizer

if TYPE_CHECKING:
    import os

    import torch

_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
}
_NORMAL, _CONTROL = 1, 3  # token types of GGUF


def write_tiny_gguf(path: str | os.PathLike[str], seed: int = 0) -> Path:
    """Write `tiny_llama(seed)` and `tiny_tokenizer()` as one GGUF file in F32 and return its path.

    Needs the extra `gguf`.

    References:
        The GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tiny_gguf(f"{folder}/tiny.gguf").read_bytes()[:4]
    b'GGUF'
    """
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), "llama")
    model = tiny_llama(seed)
    _write_shape(writer, model.config)
    _write_tokenizer(writer)
    heads = {"attn_q.weight": model.config.num_attention_heads, "attn_k.weight": model.config.num_key_value_heads}
    for name, parameter in model.named_parameters():
        target = _target(name)
        count = heads.get(target.partition(".")[2].partition(".")[2])
        tensor = _interleaved(parameter, count) if count else parameter
        writer.add_tensor(target, tensor.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def _write_shape(writer: Any, config: Any) -> None:
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def _write_tokenizer(writer: Any) -> None:
    tokenizer = tiny_tokenizer()
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if token in special else _NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in parts["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.convert_tokens_to_ids("<|im_start|>"))
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)


def _target(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest]}"


def _interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """GGUF keeps the rows of each head in rotary pairs, transformers in two halves."""
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape).contiguous()
