r"""Turns of a conversation as text, with the exact part of it that the model learns to write.

A model is asked with the text that its chat template gives for the turns so far plus the header of the answer
(`add_generation_prompt`). What it must write from there is the answer and the token that ends it. Training follows that
literally: for each trained turn the template is rendered up to the header and up to the end of the turn; what lies
between, up to and including the end-of-turn token, is trained. The newline that many templates put after that token is
written by the template, never by the model, and is not trained.

    <|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nBecause.<|im_end|>\n
    shown ................................................. trained ........... shown

This is only sound when the template never changes what it has already written. Some do: they drop the reasoning of
earlier answers as soon as a later turn comes. Such a conversation is refused with the reason, since no cut of its text
shows the model what it saw when it answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from bedstone.core.errors import UnsupportedError
from bedstone.train.data.errors import DataError
from bedstone.train.data.format import Segment

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from transformers import PreTrainedTokenizerBase

_TASK = "Below is an instruction that describes a task"
_WITH_INPUT = f"{_TASK}, paired with an input that provides further context. "
_REQUEST = "Write a response that appropriately completes the request.\n\n"
_SHOWN_CHARS = 30  # of a text in a message


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation.

    Args:
        role: `system`, `user`, `assistant` or `tool`.
        content: What was said.
    """

    role: str
    content: str


def instruction_prompt(instruction: str, context: str = "") -> str:
    r"""Return the Alpaca prompt, the usual way to ask a model that has no chat template.

    Args:
        instruction: What to do.
        context: What to do it with; empty when the instruction says all.

    References:
        R. Taori et al., Stanford Alpaca: An Instruction-following LLaMA Model, 2023,
        https://github.com/tatsu-lab/stanford_alpaca (the text is the one that `type: alpaca` means in axolotl too).

    >>> print(instruction_prompt("Name a prime.") + "2")
    Below is an instruction that describes a task. Write a response that appropriately completes the request.
    <BLANKLINE>
    ### Instruction:
    Name a prime.
    <BLANKLINE>
    ### Response:
    2
    """
    if context:
        return f"{_WITH_INPUT}{_REQUEST}### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:\n"
    return f"{_TASK}. {_REQUEST}### Instruction:\n{instruction}\n\n### Response:\n"


class ChatRenderer:
    r"""Writes prompts, answers and conversations the way one model reads them.

    Args:
        tokenizer: The model's tokenizer; its `chat_template` may be absent.

    Raises:
        UnsupportedError: The tokenizer has no end-of-sequence token: a model trained with it could not learn to stop.

    >>> from bedstone.testing.tiny import tiny_tokenizer
    >>> chat = ChatRenderer(tiny_tokenizer())
    >>> for segment in chat.conversation([Turn("user", "Why?"), Turn("assistant", "Because.")], {"assistant"}):
    ...     print(segment.trained, repr(segment.text))
    False '<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n'
    True 'Because.<|im_end|>'
    False '\n'
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.eos_token is None:
            raise UnsupportedError(
                f"The tokenizer of {tokenizer.name_or_path or 'the base model'} has no end-of-sequence token, so a "
                "model trained with it cannot learn where an answer ends.",
                feature="eos_token",
                remedy="Set `eos_token` in its tokenizer_config.json.",
            )
        self._tokenizer = tokenizer
        self._eos = cast("str", tokenizer.eos_token)
        self._bos = _leading_bos(tokenizer)
        self._ends = (self._eos, *(t.content for t in tokenizer.added_tokens_decoder.values() if t.special))

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return self._tokenizer.chat_template is not None

    def prompt(self, text: str) -> Segment:
        """Return text that is shown and not trained, opened with the token that the model expects first, if any."""
        return Segment(self._bos + text, trained=False)

    def answer(self, text: str) -> Segment:
        """Return text that is trained, closed with the end-of-sequence token."""
        return Segment(text + self._eos, trained=True)

    def question(self, text: str) -> str:
        """Return what a model is asked with, up to where its answer begins: the chat template, else the Alpaca prompt.

        Args:
            text: The question of a user.

        Returns:
            The text with every special token written out: tokenize it with `add_special_tokens=False`.

        Raises:
            DataError: The template refuses a single question.
        """
        if not self.has_template:
            return self.prompt(instruction_prompt(text)).text
        return self._render([Turn("user", text)], "the question", header=True)

    def dialogue(self, question: str, answer: str, *, source: str = "") -> list[Segment]:
        """Return one question and its trained answer, asked as `question` asks.

        Args:
            question: The question of a user.
            answer: The answer to learn.
            source: The row, for messages.

        Raises:
            DataError: The template refuses the turns or rewrites them.
        """
        if not self.has_template:
            return [self.prompt(instruction_prompt(question)), self.answer(answer)]
        return self.conversation([Turn("user", question), Turn("assistant", answer)], {"assistant"}, source=source)

    def conversation(self, turns: Sequence[Turn], trained_roles: Collection[str], *, source: str = "") -> list[Segment]:
        """Return a conversation in the model's chat template, the turns of some roles trained up to their end token.

        Args:
            turns: At least one turn, in order.
            trained_roles: Roles whose turns are trained.
            source: The row, for messages.

        Raises:
            UnsupportedError: The tokenizer has no chat template.
            DataError: The template refuses the turns, rewrites earlier turns, or ends a trained turn with no token.
        """
        source = source or "The conversation"
        whole = self._render(turns, source)
        segments, done = [], 0
        for count, turn in enumerate(turns, start=1):
            if turn.role in trained_roles:
                start, end = self._span(turns[:count], whole, source)
                segments += [Segment(whole[done:start], trained=False), Segment(whole[start:end], trained=True)]
                done = end
        segments.append(Segment(whole[done:], trained=False))
        return [segment for segment in segments if segment.text]

    def _span(self, turns: Sequence[Turn], whole: str, source: str) -> tuple[int, int]:
        """Where the last of `turns` begins and ends inside `whole`, header and closing white space left out."""
        number, before = len(turns), turns[:-1]
        text = self._prefix(self._render(turns, source), whole, f"turn {number}", source)
        if before and turns[-1].role == "assistant":
            header = self._render(before, source, header=True)
            start = len(self._prefix(header, whole, f"the header of turn {number}", source))
            return start, start + self._end_token(text[start:], number, source)[1]
        # No template has a header that asks for such a turn: it begins where its content does.
        known = len(self._prefix(self._render(before, source), whole, f"turn {number - 1}", source)) if before else 0
        token_start, token_end = self._end_token(text[known:], number, source)
        body, content = text[known : known + token_start], turns[-1].content
        if not body.endswith(content):  # many templates trim it, some put a space behind it
            body, content = body.rstrip(), content.strip()
        if not body.endswith(content):
            raise DataError(f"{source}: the chat template changes the content of turn {number}.", source=source)
        return known + len(body) - len(content), known + token_end

    def _end_token(self, written: str, number: int, source: str) -> tuple[int, int]:
        """Where the token stands that ends a turn; the model writes it, and not the white space behind it."""
        if self._eos in written:
            start = written.rindex(self._eos)
            return start, start + len(self._eos)
        kept = written.rstrip()
        found = [token for token in self._ends if kept.endswith(token)]
        if not found:
            raise DataError(
                f"{source}: the chat template ends turn {number} with {kept[-_SHOWN_CHARS:]!r}, which is no special "
                "token, so the model cannot learn where an answer ends.",
                source=source,
                remedy=f"Let the template write {self._eos!r} after each answer, or use `type: alpaca`.",
            )
        return len(kept) - len(max(found, key=len)), len(kept)

    def _prefix(self, text: str, whole: str, place: str, source: str) -> str:
        if whole.startswith(text):
            return text
        same = next((i for i, (a, b) in enumerate(zip(text, whole, strict=False)) if a != b), len(whole))
        raise DataError(
            f"{source}: the chat template does not continue its own text. What it wrote up to {place} goes on with "
            f"{text[same : same + _SHOWN_CHARS]!r}, but with all turns it has {whole[same : same + _SHOWN_CHARS]!r} there, "
            "so training would show the model what it never sees when it answers.",
            source=source,
            remedy="Split the conversation into rows that end with the answer to learn, or use another chat template.",
        )

    def _render(self, turns: Sequence[Turn], source: str, *, header: bool = False) -> str:
        from jinja2 import TemplateError

        if not self.has_template:
            raise UnsupportedError(
                f"The tokenizer of {self._tokenizer.name_or_path or 'the base model'} has no chat template.",
                feature="chat_template",
                remedy="Start from an instruction-tuned model, or use `type: alpaca`.",
            )
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=header)
        except TemplateError as error:
            roles = ", ".join(turn.role for turn in turns)
            message = f"{source}: the chat template refuses the turns {roles}: {error}"
            raise DataError(message, source=source) from error
        return cast("str", text)


def _leading_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the token that this tokenizer puts before plain text on its own account, or nothing."""
    added = tokenizer("")["input_ids"]
    return cast("str", tokenizer.bos_token) if added and added[0] == tokenizer.bos_token_id else ""
