"""Tokens of a row are those the model will be asked with; exactly the trained text has labels."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bedstone.testing.tiny import tiny_tokenizer
from bedstone.train.data import IGNORED, DataError, Example, Segment, fit, tokenize

TOKENIZER = tiny_tokenizer()
SEGMENTS = st.lists(st.builds(Segment, st.text(max_size=12), st.booleans()), max_size=5)


def ids(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def words(tokens):
    return TOKENIZER.decode(tokens)


def test_the_prompt_is_masked_and_the_end_token_is_trained():
    """The padding token is the same one, and still it is trained."""
    example = tokenize([Segment("Why?", trained=False), Segment("Because.<|im_end|>", trained=True)], TOKENIZER)
    assert example.input_ids == ids("Why?") + ids("Because.<|im_end|>")
    assert example.labels == [IGNORED] * len(ids("Why?")) + ids("Because.<|im_end|>")
    assert example.labels[-1] == TOKENIZER.eos_token_id == TOKENIZER.pad_token_id


@given(SEGMENTS, st.booleans())
def test_text_survives_and_labels_spell_the_trained_text(segments, train_on_inputs):
    """For any text, also where merges straddle a cut."""
    trained = "".join(s.text for s in segments if s.trained or train_on_inputs)
    try:
        example = tokenize(segments, TOKENIZER, train_on_inputs=train_on_inputs)
    except DataError:
        assume(False)
    assert words(example.input_ids) == "".join(s.text for s in segments)
    assert words([label for label in example.labels if label != IGNORED]) == trained
    assert all(label in {IGNORED, i} for i, label in zip(example.input_ids, example.labels, strict=True))


def test_a_prompt_is_tokenized_as_it_will_be_asked():
    """Two newlines are one token; where the cut falls between them, the prompt keeps its own."""
    assert len(ids("\n\n")) == 1
    example = tokenize([Segment("Q\n", trained=False), Segment("\nA", trained=True)], TOKENIZER)
    assert example.input_ids == ids("Q\n") + ids("\nA")
    # Neighbours that are both shown are one text.
    example = tokenize(
        [Segment("Q\n", trained=False), Segment("\n", trained=False), Segment("A", trained=True)], TOKENIZER
    )
    assert example.input_ids == ids("Q\n\n") + ids("A") != ids("Q\n\nA")


@pytest.mark.parametrize("segments", [[], [Segment("Why?", trained=False)], [Segment("", trained=True)]])
def test_a_row_with_nothing_to_train_on_is_refused(segments):
    """By name, with what to do."""
    with pytest.raises(DataError) as caught:
        tokenize(segments, TOKENIZER, source="rows.jsonl:9")
    assert str(caught.value) == (
        "rows.jsonl:9 has nothing to train on: no part of it is an answer. Give it an answer (of a role in "
        "`roles_to_train`), remove it, or set `train_on_inputs: true`."
    )


def test_the_first_token_never_counts():
    """Nothing stands before it to predict it from."""
    assert Example([2], [2]).trained_tokens == 0
    with pytest.raises(DataError):
        tokenize([Segment("<|im_end|>", trained=True)], TOKENIZER)


LONG = Example([1, 2, 3, 4], [IGNORED, IGNORED, 3, 4], "rows.jsonl:9")


def test_truncate_cuts_the_end_and_says_so():
    """A short example is untouched."""
    assert fit(LONG, 3) == Example([1, 2, 3], [IGNORED, IGNORED, 3], "rows.jsonl:9", truncated=True)
    assert fit(LONG, 4) is LONG


def test_drop_leaves_the_row_out():
    """Only when it is too long."""
    assert fit(LONG, 3, "drop") is None
    assert fit(LONG, 4, "drop") is LONG


def test_raise_refuses_the_row():
    """With both lengths."""
    with pytest.raises(DataError) as caught:
        fit(LONG, 3, "raise")
    assert str(caught.value) == (
        "rows.jsonl:9 has 4 tokens, more than `sequence_len` (=3). "
        "Raise `sequence_len`, or set `excess_length_strategy` to truncate or drop."
    )
    assert fit(LONG, 4, "raise") is LONG


def test_truncation_that_leaves_no_answer_is_refused():
    """It would be a step without a gradient."""
    with pytest.raises(DataError) as caught:
        fit(LONG, 2)
    assert str(caught.value) == (
        "rows.jsonl:9 has nothing to train on within `sequence_len` (=2): its answer begins at token 3 of 4. "
        "Raise `sequence_len`, shorten the prompt, or set `excess_length_strategy: drop`."
    )
