"""Conversations in either spelling give the same text; what cannot be rendered is refused, never dropped."""

from __future__ import annotations

import pytest

from bedstone.train.config.schema import DatasetConfig
from bedstone.train.data import Chat, DataError, Row

TURNS = [("system", "Be terse."), ("user", "Why?"), ("assistant", "Because."), ("tool", "42"), ("assistant", "So.")]
SHAREGPT = {"user": "human", "assistant": "gpt"}


def render(chat, fields, **keys):
    dataset = DatasetConfig(type="chat_template", path="rows.jsonl", **keys)
    return Chat().render(Row(fields, "rows.jsonl:4"), chat, dataset)


def messages(turns=TURNS):
    return [{"role": role, "content": content} for role, content in turns]


def conversations(turns=TURNS):
    return [{"from": SHAREGPT.get(role, role), "value": content} for role, content in turns]


def test_both_spellings_render_alike(chat):
    """Every turn is there, system and tool too."""
    segments = render(chat, {"messages": messages()})
    assert "".join(s.text for s in segments) == "".join(f"<|im_start|>{r}\n{c}<|im_end|>\n" for r, c in TURNS)
    assert [s.text for s in segments if s.trained] == ["Because.<|im_end|>", "So.<|im_end|>"]
    assert render(chat, {"conversations": conversations()}) == segments
    assert render(chat, {"messages": conversations()}) == segments


def test_names_that_are_set_are_the_only_ones(chat):
    """`talk` with `who` and `text`."""
    keys = {"field_messages": "talk", "message_property_mappings": {"role": "who", "content": "text"}}
    fields = {"talk": [{"who": "human", "text": "Why?"}, {"who": "gpt", "text": "Because."}]}
    assert render(chat, fields, **keys) == render(
        chat, {"messages": messages([("user", "Why?"), ("assistant", "Because.")])}
    )
    with pytest.raises(DataError) as caught:
        render(chat, {"conversations": conversations()}, **keys)
    assert str(caught.value) == (
        "rows.jsonl:4 has no field 'talk'. It has: conversations. "
        "Correct the file, or set `field_messages` to the name it uses."
    )


@pytest.mark.parametrize("role", ["user", "human"])
def test_roles_to_train_chooses_the_turns(chat, role):
    """In either spelling of the role."""
    segments = render(chat, {"messages": messages()}, roles_to_train=[role])
    assert [s.text for s in segments if s.trained] == ["Why?<|im_end|>"]


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ("hi", "rows.jsonl:4 (turn 2) must be an object, but is text ('hi')."),
        (
            {"role": "assistant"},
            (
                "rows.jsonl:4 (turn 2) has no field 'content'. It has: role. Correct the file, or set "
                "`message_property_mappings.content` to the name it uses."
            ),
        ),
        (
            {"role": "assistant", "content": None},
            "Field 'content' of rows.jsonl:4 (turn 2) must be text, but is null.",
        ),
        (
            {"role": "asistant", "content": "x"},
            (
                "rows.jsonl:4 (turn 2) has the unknown role 'asistant'. Did you mean 'assistant'? "
                "Known: assistant, gpt, human, system, tool, user."
            ),
        ),
        (
            {"role": "assistant", "content": "", "tool_calls": [{"name": "add"}]},
            (
                "rows.jsonl:4 (turn 2) has 'tool_calls', which is not rendered yet. "
                "Remove it, or write it into the content."
            ),
        ),
    ],
)
def test_a_malformed_turn_is_named(chat, turn, message):
    """By its number in the row."""
    with pytest.raises(DataError) as caught:
        render(chat, {"messages": [{"role": "user", "content": "Why?"}, turn]})
    assert str(caught.value) == message


def test_tools_of_a_row_are_refused(chat):
    """Dropping them would train on a prompt that the model never sees."""
    with pytest.raises(DataError) as caught:
        render(chat, {"messages": messages(), "tools": [{"name": "add"}]})
    assert str(caught.value) == (
        "rows.jsonl:4 has 'tools', which is not rendered yet. Remove it, or write it into the content."
    )
    assert render(chat, {"messages": messages(), "tools": []})
