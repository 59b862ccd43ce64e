"""Texts are read whole or refused by name, and cut into windows in which every token but the first is predicted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from bedstone.core.errors import InvalidConfigError, StorageError
from bedstone.testing.tiny import tiny_tokenizer
from bedstone.train.quantize.texts import Text, read_texts
from bedstone.train.quantize.windows import WINDOW, windows

TOKENIZER = tiny_tokenizer()


def with_bos():
    """A tokenizer that begins every text with a special token, as Llama's does."""
    tokenizer = tiny_tokenizer()
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    return tokenizer


# --- texts -------------------------------------------------------------------------------------------


def test_without_a_file_it_is_the_language_reference_of_this_python():
    """The same every time, long enough for thousands of tokens, named with the version."""
    (text,) = read_texts([], 4096)
    assert text.name.startswith("Python 3.")
    assert text.name.endswith(" language reference")
    assert text == read_texts([], 4096)[0]
    assert len(text.content) > 100_000


def test_files_keep_their_order_and_names(tmp_path):
    """Only as much is read as the tokens can need."""
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(name * 1000)
    texts = read_texts([tmp_path / "b.txt", tmp_path / "a.txt"], tokens=4)
    assert [text.name for text in texts] == ["b.txt", "a.txt"]
    assert {len(text.content) for text in texts} == {256}


def test_a_character_at_the_cut_is_left_out(tmp_path):
    """It is no sign of another encoding."""
    (tmp_path / "a.txt").write_text("x" + "\u00e4" * 1000, encoding="utf-8")
    (text,) = read_texts([tmp_path / "a.txt"], tokens=4)
    assert text.content == "x" + "\u00e4" * 127


def test_refuses_texts_that_cannot_be_measured_on(tmp_path):
    """Absent, empty, of blanks only, not UTF-8, a folder."""
    with pytest.raises(StorageError) as caught:
        read_texts([tmp_path / "absent.txt"], 8)
    assert str(caught.value) == f"Could not read the text at {tmp_path / 'absent.txt'}: No such file or directory."
    for content in ("", " \n\t"):
        (tmp_path / "empty.txt").write_text(content)
        with pytest.raises(InvalidConfigError) as caught:
            read_texts([tmp_path / "empty.txt"], 8)
        assert str(caught.value) == f"The text {tmp_path / 'empty.txt'} is empty. Give a text of some pages."
    (tmp_path / "latin.txt").write_bytes("na\u00efve".encode("latin-1"))
    with pytest.raises(InvalidConfigError) as caught:
        read_texts([tmp_path / "latin.txt"], 8)
    assert str(caught.value) == f"The text {tmp_path / 'latin.txt'} is not UTF-8: byte 0xef at position 2. Convert it."
    with pytest.raises(StorageError, match="Is a directory"):
        read_texts([tmp_path], 8)


# --- windows -----------------------------------------------------------------------------------------


@given(length=st.integers(2, 1500), tokens=st.integers(2, 1500), longest=st.sampled_from([None, 8, 100, 4096]))
def test_windows_hold_the_beginning_of_the_text(length, tokens, longest):
    """Put together they are its first tokens; every token of a window but the first is predicted."""
    text = Text("t", "ab" * length)
    ids = TOKENIZER(text.content)["input_ids"][:tokens]
    cut = windows(text, TOKENIZER, tokens=tokens, longest=longest)
    joined = torch.cat([window.ids for window in cut], dim=1)[0].tolist()
    size = min(WINDOW, longest or WINDOW)
    assert joined == ids[: len(joined)]
    assert len(ids) - len(joined) <= 1  # a last window of one token predicts nothing
    assert all(window.ids.shape[1] <= size for window in cut)
    assert [window.predicted for window in cut] == [window.ids.shape[1] - 1 for window in cut]


def test_a_special_first_token_stands_before_every_window():
    """Then every token of the text is predicted, and a window is no longer than before."""
    cut = windows(Text("t", "ab" * 400), with_bos(), tokens=800)
    assert [tuple(window.ids.shape) for window in cut] == [(1, 512), (1, 290)]
    assert {window.ids[0, 0].item() for window in cut} == {TOKENIZER.bos_token_id}
    assert [window.predicted for window in cut] == [511, 289]
    assert sum(window.predicted for window in cut) == 800


def test_refuses_a_text_of_one_token():
    """Nothing would be predicted."""
    with pytest.raises(InvalidConfigError) as caught:
        windows(Text("note.txt", "a"), TOKENIZER, tokens=100)
    assert str(caught.value) == (
        "The text note.txt has 1 token; at least 2 are needed to predict one. Give a text of some pages."
    )
