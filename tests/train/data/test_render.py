"""A conversation is cut exactly where the model begins and ends to write, or refused with the reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.errors import UnsupportedError
from bedstone.testing.tiny import CHATML, tiny_tokenizer
from bedstone.train.data import ChatRenderer, DataError, Segment, Turn

USER, ASSISTANT = Turn("user", "Why?"), Turn("assistant", "Because.")
# Drops the reasoning of every answer but the last, as several reasoning models do.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think></think>{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ENDLESS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
STRICT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "[{{ m['role'] }}]{{ m['content'] | trim }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
OTHER_END = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|endoftext|>\n{% endfor %}"


def render(turns, template=CHATML, roles=("assistant",)):
    return ChatRenderer(tiny_tokenizer(template)).conversation(turns, set(roles), source="rows.jsonl:1")


def trained(segments) -> list[str]:
    return [s.text for s in segments if s.trained]


def test_trains_an_answer_up_to_its_end_token():
    """The newline behind it is the template's."""
    assert render([USER, ASSISTANT]) == [
        Segment("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n", trained=False),
        Segment("Because.<|im_end|>", trained=True),
        Segment("\n", trained=False),
    ]


def test_trains_each_answer_and_keeps_the_system_turn():
    """Nothing of the conversation is lost."""
    turns = [Turn("system", "Be terse."), USER, ASSISTANT, Turn("user", "So?"), Turn("assistant", "Yes.")]
    segments = render(turns)
    assert trained(segments) == ["Because.<|im_end|>", "Yes.<|im_end|>"]
    assert "".join(s.text for s in segments) == "".join(f"<|im_start|>{t.role}\n{t.content}<|im_end|>\n" for t in turns)


@given(
    st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=20)), min_size=1, max_size=6),
    st.sets(st.sampled_from(["system", "user", "assistant"])),
)
def test_every_trained_turn_is_its_content_and_end_token(turns, roles):
    """Whatever the roles, their order and the text are."""
    conversation = [Turn(role, content) for role, content in turns]
    segments = render(conversation, roles=roles)
    assert trained(segments) == [f"{content}<|im_end|>" for role, content in turns if role in roles]
    assert "".join(s.text for s in segments) == "".join(
        f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns
    )


def test_trains_other_roles_from_their_content_on():
    """Also when the content is the word in the header, and when the assistant speaks first."""
    assert trained(render([Turn("user", "user"), ASSISTANT], roles=["user"])) == ["user<|im_end|>"]
    assert trained(render([Turn("assistant", "assistant"), USER])) == ["assistant<|im_end|>"]


def test_finds_content_that_the_template_trims():
    """White space around it is then no part of the turn."""
    assert trained(render([Turn("user", " Why? "), ASSISTANT], STRICT, ["user"])) == ["Why?<|im_end|>"]


def test_a_special_token_other_than_eos_may_end_a_turn():
    """Some templates close a turn with a token of their own."""
    assert trained(render([USER, ASSISTANT], OTHER_END)) == ["assistant: Because.<|endoftext|>"]


def test_nothing_is_trained_without_a_turn_of_the_role():
    """The caller refuses such a row by name."""
    assert trained(render([USER])) == []


def test_refuses_a_template_that_rewrites_an_earlier_answer():
    """No cut of the text shows what the model saw."""
    assert trained(render([USER, ASSISTANT], FORGETFUL)) == ["<think></think>Because.<|im_end|>"]
    with pytest.raises(DataError) as caught:
        render([USER, ASSISTANT, Turn("user", "So?"), Turn("assistant", "Yes.")], FORGETFUL)
    assert str(caught.value) == (
        "rows.jsonl:1: the chat template does not continue its own text. What it wrote up to turn 2 goes on with "
        "'<think></think>Because.<|im_en', but with all turns it has 'Because.<|im_end|>\\n<|im_start|' there, so training "
        "would show the model what it never sees when it answers. Split the conversation into rows that end with the "
        "answer to learn, or use another chat template."
    )


def test_refuses_a_template_that_never_ends_an_answer():
    """The model could not learn to stop."""
    with pytest.raises(DataError) as caught:
        render([USER, ASSISTANT], ENDLESS)
    assert str(caught.value) == (
        "rows.jsonl:1: the chat template ends turn 2 with 'assistant: Because.', which is no special token, so the model "
        "cannot learn where an answer ends. Let the template write '<|im_end|>' after each answer, or use `type: alpaca`."
    )


def test_passes_on_what_a_template_refuses():
    """In its own words, with the row."""
    with pytest.raises(DataError) as caught:
        render([Turn("system", "Be terse."), USER, ASSISTANT], STRICT)
    assert str(caught.value) == (
        "rows.jsonl:1: the chat template refuses the turns system, user, assistant: System role not supported"
    )


def test_a_system_turn_is_never_rendered_alone():
    """Several templates refuse a conversation without a user turn."""
    needs_user = "{% if messages[-1]['role'] == 'system' %}{{ raise_exception('no user') }}{% endif %}" + CHATML
    assert trained(render([Turn("system", "Be terse."), USER, ASSISTANT], needs_user)) == ["Because.<|im_end|>"]


def test_refuses_changed_content_of_a_turn_without_header():
    """Its beginning could not be found."""
    with pytest.raises(DataError) as caught:
        render([USER], CHATML.replace("message['content']", "message['content'] | upper"), ["user"])
    assert str(caught.value) == "rows.jsonl:1: the chat template changes the content of turn 1."


def test_without_a_template_only_plain_text_works(plain_tokenizer):
    """A conversation is refused, a question is asked in the Alpaca prompt."""
    chat = ChatRenderer(plain_tokenizer)
    assert not chat.has_template
    prompt = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nWhy?\n\n### Response:\n"
    )
    assert chat.question("Why?") == prompt
    assert chat.dialogue("Why?", "Because.") == [
        Segment(prompt, trained=False),
        Segment("Because.<|im_end|>", trained=True),
    ]
    with pytest.raises(UnsupportedError) as caught:
        chat.conversation([USER, ASSISTANT], {"assistant"})
    assert str(caught.value) == (
        "The tokenizer of the base model has no chat template. Start from an instruction-tuned model, or use "
        "`type: alpaca`."
    )


def test_a_dialogue_begins_with_its_question(chat):
    """So generation asks with the very text that training showed."""
    assert chat.dialogue("Why?", "Because.")[0].text == chat.question("Why?")


def test_plain_text_opens_with_the_token_that_the_tokenizer_adds():
    """As the model saw every text in its pre-training."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    assert ChatRenderer(tokenizer).prompt("Hi") == Segment("<|im_start|>Hi", trained=False)
    assert ChatRenderer(tiny_tokenizer()).prompt("Hi") == Segment("Hi", trained=False)


def test_refuses_a_tokenizer_without_an_end_token():
    """Said before any row is read."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UnsupportedError) as caught:
        ChatRenderer(tokenizer)
    assert str(caught.value) == (
        "The tokenizer of the base model has no end-of-sequence token, so a model trained with it cannot learn where an "
        "answer ends. Set `eos_token` in its tokenizer_config.json."
    )
