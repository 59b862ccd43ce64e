"""An exported Llama opens in the `gguf` package and in transformers with the values of the model, and comes back packed."""

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFValueType
from gguf.quants import dequantize

import bedstone as bs
from bedstone import quant
from bedstone.core.errors import InvalidConfigError, StorageError, UnknownNameError, UnsupportedError
from bedstone.quant.formats import WeightFormatError, assign_state, export_gguf, load_gguf
from bedstone.quant.formats.gguf_llama import pretokenizer_name, to_halves
from bedstone.testing import tiny_llama, tiny_tokenizer

IDS = torch.arange(40).view(1, -1)


def _wide_llama(**config):
    """A tiny Llama whose rows are multiples of 256, as the ternary types need them."""
    return tiny_llama(hidden_size=256, intermediate_size=512, num_hidden_layers=1, **config)


def _values(path, name):
    """What the `gguf` package reads, in the order of rows of the file."""
    tensor = next(t for t in GGUFReader(path).tensors if t.name == name)
    return torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())


def _logits_of_file(path):
    """The logits of the file as transformers reads it."""
    from transformers import AutoModelForCausalLM, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    with torch.no_grad():
        return model.eval()(IDS).logits


def _close(left, right, tolerance):
    return bool(torch.linalg.vector_norm(left - right) <= tolerance * torch.linalg.vector_norm(right))


CASES = [
    ("q8_0", None, tiny_llama),
    ("q4_0", None, tiny_llama),
    ("q8_0", quant.Int8("block", 32), tiny_llama),
    ("tq1_0", quant.Ternary(), _wide_llama),
    ("tq2_0", quant.Ternary(), _wide_llama),
    ("tq2_0", quant.Ternary("block", 256), _wide_llama),
    ("tq1_0", quant.Ternary("row"), _wide_llama),
]


def _name(value):
    """The name of a case, the same in every process: a function's text holds its address."""
    return getattr(value, "__name__", None) or str(value)


@pytest.mark.parametrize(("kind", "scheme", "make"), CASES, ids=_name)
def test_gguf_reads_the_values_of_the_model(tmp_path, kind, scheme, make):
    """Each tensor, rows brought back in order, is the model's weight up to the error that the report states; exact codes stay exact."""
    model, path = make(), tmp_path / "m.gguf"
    if scheme:
        bs.quantize(model, scheme)
    report = export_gguf(model, path, kind, dense="f32")
    parameters = dict(model.named_parameters())
    assert sorted(t.gguf_name for t in report.tensors) == sorted(t.name for t in GGUFReader(path).tensors)
    for tensor in report.tensors:
        weight = parameters[tensor.name]
        exact = weight.dequantize() if isinstance(weight, quant.QuantizedTensor) else weight.detach()
        values = _values(path, tensor.gguf_name)
        heads = {"attn_q": 4, "attn_k": 2}.get(tensor.gguf_name.split(".")[-2])
        values = to_halves(values, heads) if heads else values
        error = (torch.linalg.vector_norm(values - exact) / torch.linalg.vector_norm(exact)).item()
        assert error == pytest.approx(tensor.error, abs=1e-6)
        if scheme and tensor.type == kind:
            assert error < 5e-4  # of the scales, which are halves; the codes are the same
            assert torch.equal(values.sign(), exact.sign())
        elif tensor.type == "f32":
            assert error == 0
    linear = [t for t in report.tensors if "proj" in t.name]
    assert {t.type for t in linear} == {kind}


@pytest.mark.parametrize(("kind", "scheme", "make"), [CASES[0], *CASES[2:5]], ids=_name)
def test_transformers_computes_the_same_logits(tmp_path, kind, scheme, make):
    """The file, read by transformers' own GGUF code, is our packed model: names, order of rows and shape are right."""
    model, path = make(), tmp_path / "m.gguf"
    if scheme:
        bs.quantize(model, scheme)
    export_gguf(model, path, kind, dense="f32", tokenizer=tiny_tokenizer())
    with torch.no_grad():
        ours = model(IDS).logits
    assert _close(_logits_of_file(path), ours, 1e-3 if scheme else 0.03)


@pytest.mark.parametrize(("kind", "scheme", "make"), CASES, ids=_name)
def test_the_way_back_is_packed_and_exact(tmp_path, kind, scheme, make):
    """Loaded into a dense model, the linear layers are packed with the codes of the file; exported again it is the same file."""
    model, path = make(), tmp_path / "m.gguf"
    if scheme:
        bs.quantize(model, scheme)
    first = export_gguf(model, path, kind, dense="f32", name="m")
    back = make(seed=1)
    state = load_gguf(path)
    assign_state(back, state)
    weight = back.model.layers[0].mlp.up_proj.weight
    if kind == "q4_0":
        assert not isinstance(weight, quant.QuantizedTensor)
        assert torch.equal(weight, _values(path, "blk.0.ffn_up.weight"))
        return
    assert isinstance(weight, quant.QuantizedTensor)
    assert torch.equal(weight.dequantize(), _values(path, "blk.0.ffn_up.weight"))
    if scheme:
        packed = model.model.layers[0].self_attn.q_proj.weight
        part = "codes" if kind == "q8_0" else "packed"
        assert torch.equal(back.model.layers[0].self_attn.q_proj.weight.parts[part], packed.parts[part])
    again = export_gguf(back, tmp_path / "again.gguf", kind, dense="f32", name="m")
    assert again.sha256 == first.sha256


def test_an_untied_head_and_biases_have_their_names(tmp_path):
    """`output.weight` is written for a head of its own, biases of q and k with their rows in pairs."""
    model = tiny_llama(tie_word_embeddings=False, attention_bias=True)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.bias.copy_(torch.arange(64.0))
    export_gguf(model, tmp_path / "m.gguf", "q8_0")
    assert _values(tmp_path / "m.gguf", "output.weight").shape == model.lm_head.weight.shape
    assert _values(tmp_path / "m.gguf", "blk.0.attn_q.bias")[:4].tolist() == [0, 8, 1, 9]
    state = load_gguf(tmp_path / "m.gguf")
    assert torch.equal(state["model.layers.0.self_attn.q_proj.bias"], torch.arange(64.0))
    assign_state(tiny_llama(tie_word_embeddings=False, attention_bias=True), state)


def test_a_packed_embedding_is_read_dense(tmp_path):
    """An embedding is read by row; llama.cpp's own files have it as Q8_0. The tied head is the same tensor."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    weight = tiny_llama().model.embed_tokens.weight.detach()
    data = quantize(weight.numpy(), GGMLQuantizationType.Q8_0)
    writer = GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_head_count(4)
    writer.add_tensor("token_embd.weight", data, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    state = load_gguf(tmp_path / "m.gguf")
    assert type(state["model.embed_tokens.weight"]) is torch.Tensor
    assert torch.equal(
        state["model.embed_tokens.weight"], torch.from_numpy(dequantize(data, GGMLQuantizationType.Q8_0))
    )
    assert state["lm_head.weight"] is state["model.embed_tokens.weight"]


def test_shape_and_tokenizer_stand_in_the_file(tmp_path):
    """What llama.cpp reads: the numbers of the configuration, the tokens, their kinds, merges and template."""
    tokenizer = tiny_tokenizer()
    export_gguf(tiny_llama(), tmp_path / "m.gguf", "q8_0", tokenizer=tokenizer, name="Tiny")
    reader = GGUFReader(tmp_path / "m.gguf")
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert (fields["general.architecture"], fields["general.name"], fields["general.file_type"]) == ("llama", "Tiny", 7)
    assert (fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]) == (4, 2)
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert fields["tokenizer.ggml.tokens"] == tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    assert fields["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert len(fields["tokenizer.ggml.merges"]) > 10
    assert fields["tokenizer.chat_template"] == tokenizer.chat_template
    assert reader.fields["general.name"].types == [GGUFValueType.STRING]
    assert all(t.data_offset % 32 == 0 for t in reader.tensors)


def test_an_embedding_larger_than_the_tokenizer_is_filled_up(tmp_path):
    """Rows without a token get one that is never used; more tokens than rows are refused before anything is written."""
    tokenizer = tiny_tokenizer()
    export_gguf(tiny_llama(vocab_size=len(tokenizer) + 3), tmp_path / "m.gguf", "q8_0", tokenizer=tokenizer)
    fields = {key: field.contents() for key, field in GGUFReader(tmp_path / "m.gguf").fields.items()}
    assert fields["tokenizer.ggml.tokens"][-1] == f"[PAD{len(tokenizer) + 2}]"
    assert fields["tokenizer.ggml.token_type"][-3:] == [5, 5, 5]
    with pytest.raises(
        InvalidConfigError, match=r"`tokenizer` has .* tokens, and the embedding of the model has 100 rows"
    ):
        export_gguf(tiny_llama(vocab_size=100), tmp_path / "n.gguf", "q8_0", tokenizer=tokenizer)
    assert not (tmp_path / "n.gguf").exists()


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ({"type": "ByteLevel", "use_regex": True, "add_prefix_space": False}, "gpt-2"),
        (
            {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Digits", "individual_digits": True},
                    {"type": "ByteLevel", "use_regex": True, "add_prefix_space": False},
                ],
            },
            "smollm",
        ),
    ],
)
def test_the_way_to_cut_text_is_recognized(rule, name):
    """GPT-2's and SmolLM's have names; any other must be named by the caller, since a wrong one is a worse model in silence."""
    assert pretokenizer_name(rule) == name
    with pytest.raises(UnsupportedError, match=r"has no name here\. Pass llama\.cpp's name for it"):
        pretokenizer_name({"type": "Split"})


def test_the_report_says_what_became_what(tmp_path):
    """A line for each type and reason, with bytes and the largest error."""
    model = tiny_llama(num_hidden_layers=1)
    bs.quantize(model, quant.Int8("block", 32), skip=["q_proj"])
    report = export_gguf(model, tmp_path / "m.gguf", "q8_0")
    assert report.bytes == (tmp_path / "m.gguf").stat().st_size
    lines = str(report).splitlines()
    assert lines[0] == f"{tmp_path / 'm.gguf'}: {report.bytes:,} bytes, 11 tensors."
    assert [line.partition(":")[0] for line in lines[1:]] == ["f16", "q8_0", "q8_0", "f32"]
    assert "(quantized as llama.cpp does)" in lines[2]
    assert "(the codes of int8, scales rounded to a half)" in lines[3]


# --- what is refused, and what is done when asked ----------------------------------------------------


def test_rows_that_do_not_fit_are_refused_with_all_layers(tmp_path):
    """No layer is left out of the list, and nothing is written; asked for, they are dense and the report says why."""
    model = tiny_llama(hidden_size=48, num_attention_heads=4, num_hidden_layers=1)
    with pytest.raises(WeightFormatError) as caught:
        export_gguf(model, tmp_path / "m.gguf", "q8_0")
    assert str(caught.value).startswith(
        "6 layers have rows that are no multiple of 32, the block of q8_0: model.layers.0.self_attn.q_proj.weight, "
    )
    assert str(caught.value).endswith("or leave these layers dense with unfit='dense'.")
    assert len(caught.value.layers) == 6
    assert list(tmp_path.iterdir()) == []
    report = export_gguf(model, tmp_path / "m.gguf", "q8_0", unfit="dense")
    assert {t.type for t in report.tensors if t.name in caught.value.layers} == {"f16"}
    assert {t.note for t in report.tensors if t.name in caught.value.layers} == {"rows of 48 are no multiple of 32"}


@pytest.mark.parametrize("scheme", ["nf4", "fp4", "int8", "fp8", "ternary"])
def test_a_second_quantization_must_be_asked_for(tmp_path, scheme):
    """What a type does not hold exactly is refused by name; asked for, it is done and the report has its cost."""
    model = tiny_llama(num_hidden_layers=1)
    bs.quantize(model, scheme)
    with pytest.raises(
        WeightFormatError, match="7 layers have packed weights that q8_0 does not hold exactly: model"
    ) as caught:
        export_gguf(model, tmp_path / "m.gguf", "q8_0")
    assert len(caught.value.layers) == 7
    report = export_gguf(model, tmp_path / "m.gguf", "q8_0", requantize=True)
    again = [t for t in report.tensors if t.type == "q8_0"]
    assert {t.note for t in again} == {"unpacked and quantized again"}
    assert 0 < max(t.error for t in again) < 0.02


def test_dense_types_unpack_without_asking(tmp_path):
    """f32 holds what any scheme unpacks to."""
    model = tiny_llama(num_hidden_layers=1)
    bs.quantize(model, "nf4")
    report = export_gguf(model, tmp_path / "m.gguf", "f32", dense="f32")
    assert max(t.error for t in report.tensors) == 0
    assert {t.note for t in report.tensors if "proj" in t.name} == {"unpacked from nf4, as asked"}


def test_no_master_weight_is_made_ternary(tmp_path):
    """A dense model has no trits to export; beside ternary layers, dense ones stay dense."""
    with pytest.raises(WeightFormatError, match="No weight of the model becomes tq2_0: none is packed as ternary"):
        export_gguf(_wide_llama(), tmp_path / "m.gguf", "tq2_0")
    model = _wide_llama(tie_word_embeddings=False)
    bs.quantize(model, "ternary", skip=["lm_head"])
    report = export_gguf(model, tmp_path / "m.gguf", "tq2_0")
    head = next(t for t in report.tensors if t.name == "lm_head.weight")
    assert (head.type, head.note) == ("f16", "not ternary in whole blocks of 256")


def test_a_value_that_no_half_holds_leaves_no_file(tmp_path):
    """The failure comes in the middle of writing; the earlier file is as it was, and no draft stays."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"earlier")
    model = tiny_llama(num_hidden_layers=1)
    with torch.no_grad():
        model.model.embed_tokens.weight[3, 3] = 1e5
    with pytest.raises(WeightFormatError, match=r"'model\.embed_tokens\.weight' has values that f16 does not hold"):
        export_gguf(model, path, "q8_0")
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_other_models_and_options_are_refused(tmp_path):
    """A module that is no Llama, scaled rotary positions, adapters, unknown types."""
    target = tmp_path / "m.gguf"
    with pytest.raises(
        UnsupportedError, match="Only Llama models with a language head are exported to GGUF, and this is 'Linear'"
    ):
        export_gguf(torch.nn.Linear(2, 2), target)
    scaled = tiny_llama()
    scaled.config.rope_parameters = scaled.config.rope_parameters | {"rope_type": "linear", "factor": 2.0}
    with pytest.raises(UnsupportedError, match="`rope_type` \\(='linear'\\); only 'default' is exported"):
        export_gguf(scaled, target)
    adapted = tiny_llama()
    adapted.model.layers[0].mlp.extra = torch.nn.Linear(2, 2)
    with pytest.raises(UnsupportedError, match=r"'model\.layers\.0\.mlp\.extra\.weight' has no place in a GGUF file"):
        export_gguf(adapted, target)
    with pytest.raises(UnknownNameError, match="Did you mean 'tq1_0'"):
        export_gguf(tiny_llama(), target, "tq10")
    with pytest.raises(StorageError, match="Could not write the GGUF file at"):
        export_gguf(tiny_llama(), tmp_path / "no" / "m.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 3, 40, 0.3, 0.999])
def test_a_truncated_file_is_refused(tmp_path, keep):
    """Wherever it was cut, the message has the path and says to get the file again."""
    path = tmp_path / "m.gguf"
    export_gguf(tiny_llama(num_hidden_layers=1), path, "q8_0")
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(StorageError) as caught:
        load_gguf(path)
    assert str(caught.value).startswith(f"{path} is damaged or truncated, or no GGUF file")


def test_a_missing_file_and_another_architecture_are_refused(tmp_path):
    """The reason comes through."""
    from gguf import GGUFWriter

    with pytest.raises(StorageError, match=r"Could not read the GGUF file at .*: No such file"):
        load_gguf(tmp_path / "none.gguf")
    writer = GGUFWriter(str(tmp_path / "m.gguf"), "gpt2")
    writer.add_tensor("token_embd.weight", np.ones((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedError, match="holds a model of the architecture 'gpt2'"):
        load_gguf(tmp_path / "m.gguf")
