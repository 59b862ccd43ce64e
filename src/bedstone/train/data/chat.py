"""Conversations, rendered by the model's own chat template; system turns are kept.

Two ways to write a turn are in use, and both are read without configuration:

    {"messages":      [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}
    {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]}

Other names are set with `field_messages` and `message_property_mappings`; what is set is then the only way. Parts of a
turn that change what the model reads and are not rendered (tool calls, reasoning) are refused, not dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bedstone.core.errors import nearest
from bedstone.train.data.errors import DataError
from bedstone.train.data.format import DataFormat, Row, Segment, formats, json_kind
from bedstone.train.data.jsonl import read_jsonl
from bedstone.train.data.render import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bedstone.train.config.schema import DatasetConfig
    from bedstone.train.data.render import ChatRenderer

_ROLES = {"human": "user", "gpt": "assistant", "system": "system", "user": "user", "assistant": "assistant"}
_ROLES |= {"tool": "tool"}
_NOT_RENDERED = ("tool_calls", "function_call", "reasoning_content", "thinking")
_NOT_RENDERED_IN_ROW = ("tools", "functions")


@formats.register("chat_template")
class Chat(DataFormat):
    """JSONL with a list of turns a row."""

    def rows(self, dataset: DatasetConfig) -> Iterator[Row]:
        """Yield the rows of the file at `dataset.path`."""
        return read_jsonl(dataset)

    def render(self, row: Row, chat: ChatRenderer, dataset: DatasetConfig) -> list[Segment]:
        """Return the conversation in the model's chat template, the turns of `roles_to_train` trained.

        Raises:
            DataError: The list or a turn is missing, malformed or has parts that are not rendered, or the template
                refuses the turns.
            UnsupportedError: The tokenizer has no chat template.
        """
        roles = {_ROLES.get(role, role) for role in dataset.roles_to_train}
        return chat.conversation(_turns(row, dataset), roles, source=row.source)


def _turns(row: Row, dataset: DatasetConfig) -> list[Turn]:
    _refuse(row.fields, _NOT_RENDERED_IN_ROW, row.source)
    name = dataset.field_messages
    if name == "messages" and name not in row.fields and "conversations" in row.fields:
        name = "conversations"
    found = row.items(name, key="field_messages")
    return [_turn(value, f"{row.source} (turn {i})", dataset) for i, value in enumerate(found, start=1)]


def _turn(value: Any, source: str, dataset: DatasetConfig) -> Turn:
    if not isinstance(value, dict):
        message = f"{source} must be an object, but is {json_kind(value)}."
        raise DataError(message, source=source, field=dataset.field_messages)
    _refuse(value, _NOT_RENDERED, source)
    names = {"role": "role", "content": "content"} | dict(dataset.message_property_mappings)
    if names == {"role": "role", "content": "content"} and "role" not in value and "from" in value:
        names = {"role": "from", "content": "value"}
    turn = Row(value, source)
    role = turn.text(names["role"], key="message_property_mappings.role")
    content = turn.text(names["content"], key="message_property_mappings.content")
    return Turn(_role(role, source), content)


def _role(name: str, source: str) -> str:
    if name in _ROLES:
        return _ROLES[name]
    guess = nearest(name, _ROLES)
    hint = f" Did you mean {guess!r}?" if guess else ""
    message = f"{source} has the unknown role {name!r}.{hint} Known: {', '.join(sorted(_ROLES))}."
    raise DataError(message, source=source, field="role")


def _refuse(value: Any, names: tuple[str, ...], source: str) -> None:
    """Refuse a part that would change what the model reads and that is not rendered."""
    for name in names:
        if value.get(name):
            message = f"{source} has {name!r}, which is not rendered yet."
            raise DataError(message, source=source, field=name, remedy="Remove it, or write it into the content.")
