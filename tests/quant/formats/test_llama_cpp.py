"""llama.cpp loads the exported files and computes the logits that transformers computes from the same weights."""

import numpy as np
import pytest
import torch

import bedstone as bs
from bedstone import quant
from bedstone.quant.formats import export_gguf
from bedstone.testing import tiny_llama, tiny_tokenizer

pytestmark = pytest.mark.slow
llama_cpp = pytest.importorskip(
    "llama_cpp",
    reason="llama.cpp is not installed; `pip install llama-cpp-python` builds it from source, which takes minutes",
)
IDS = list(range(3, 63))


def _wide_llama():
    return tiny_llama(hidden_size=256, intermediate_size=512)


def _theirs(path):
    """The logits of each position, as llama.cpp computes them."""
    model = llama_cpp.Llama(str(path), n_ctx=128, n_threads=1, logits_all=True, verbose=False)
    try:
        model.eval(IDS)
        return torch.from_numpy(np.array(model.scores[: len(IDS)]))
    finally:
        model.close()


def _ours(model):
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0]


CASES = [
    ("f32", None, tiny_llama, 1e-3),  # llama.cpp keeps keys and values as halves
    ("q8_0", None, tiny_llama, 0.02),  # it also rounds activations to int8 in blocks of 32
    ("q8_0", quant.Int8("block", 32), tiny_llama, 0.02),
    ("tq1_0", quant.Ternary(), _wide_llama, 0.03),  # and here in blocks of 256
    ("tq2_0", quant.Ternary(), _wide_llama, 0.03),
    ("tq2_0", quant.Ternary("block", 256), _wide_llama, 0.03),
]


@pytest.mark.parametrize(("kind", "scheme", "make", "tolerance"), CASES, ids=str)
def test_llama_cpp_computes_our_logits(tmp_path, kind, scheme, make, tolerance):
    """The logits differ by no more than llama.cpp's rounding of activations; wrong names, rows or codes would differ by all of it."""
    model = make()
    if scheme:
        bs.quantize(model, scheme)
    export_gguf(model, tmp_path / "m.gguf", kind, dense="f32", tokenizer=tiny_tokenizer())
    ours, theirs = _ours(model), _theirs(tmp_path / "m.gguf")
    error = (torch.linalg.vector_norm(theirs - ours) / torch.linalg.vector_norm(ours)).item()
    assert error < tolerance


def test_llama_cpp_quantizes_q4_0_as_the_file_has_it(tmp_path):
    """Of q4_0 the reference is the file itself, since four bits change the model."""
    from bedstone.quant.formats import assign_state, load_gguf

    model = tiny_llama()
    export_gguf(model, tmp_path / "m.gguf", "q4_0", dense="f32", tokenizer=tiny_tokenizer())
    assign_state(model, load_gguf(tmp_path / "m.gguf"))
    ours, theirs = _ours(model), _theirs(tmp_path / "m.gguf")
    assert (torch.linalg.vector_norm(theirs - ours) / torch.linalg.vector_norm(ours)).item() < 0.02


def test_the_tokenizer_cuts_text_as_ours(tmp_path):
    """Tokens of plain text, of many spaces and of bytes beyond ASCII are the same."""
    tokenizer = tiny_tokenizer()
    export_gguf(tiny_llama(), tmp_path / "m.gguf", "q8_0", tokenizer=tokenizer)
    model = llama_cpp.Llama(str(tmp_path / "m.gguf"), vocab_only=True, verbose=False)
    try:
        for text in ("What does the Python function return?", "a  b\n\n c", "naïve 🙂", "1234 it's"):
            assert model.tokenize(text.encode(), add_bos=False) == tokenizer(text)["input_ids"], text
    finally:
        model.close()
