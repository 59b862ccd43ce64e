"""YAML read the way a config needs it: with the line of every key, and without YAML's traps.

PyYAML's `safe_load` keeps no lines, takes the last of two equal keys in silence, reads `5e-4` as text (YAML 1.1 wants `5.0e-4`)
and 010 as 8. So the document is composed into nodes, which carry lines, and the nodes are walked here. Nothing but plain
values can come out: tags that would build objects are refused. Aliases are refused too: a config has no use for them,
and they can make a small file endless.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from bedstone.core.errors import Problem
from bedstone.train.config.key_path import join_path

EXPONENT_NUMBER = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
"""Numbers such as `5e-4` and `1.5e3`, which YAML 1.2 has and YAML 1.1 takes for text."""

_NUMBER_TAGS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
_STRANGE_NUMBER = re.compile(r"^[-+]?(0[0-9_]+|.*:.*)$")  # 010 is 8 and 1:30 is 90 in YAML 1.1
_NAMES = {yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}
_FLOAT_TAG = "tag:yaml.org,2002:float"
_PLAIN_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML text says.

    Attributes:
        values: The top-level mapping; `None` when the text has none.
        lines: The line of each key and list entry, counted from 1, by path.
        problems: What is wrong with the text as YAML; the values are whole without them.
    """

    values: dict[str, Any] | None
    lines: dict[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads `5e-4` as a number and refuses aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(
                problem="aliases are not allowed; write the value out", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(_FLOAT_TAG, EXPONENT_NUMBER, list("-+0123456789"))


def read_document(text: str) -> Document:
    r"""Read a YAML text whose top level is a mapping.

    Args:
        text: The whole text.

    Returns:
        Values and lines; all that is wrong is in `problems`, nothing is raised.

    >>> document = read_document("lora_r: 8\nlearning_rate: 5e-4\nlora_r: 9")
    >>> document.values, document.lines["learning_rate"]
    ({'lora_r': 8, 'learning_rate': 0.0005}, 2)
    >>> document.problems[0].message
    'given twice, first on line 1.'
    """
    try:
        return _read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return _unreadable(f"is not YAML: {error.problem or error.context}.", None if mark is None else mark.line + 1)
    except yaml.YAMLError as error:
        return _unreadable(f"is not YAML: {str(error).splitlines()[0]}.", None)
    except RecursionError:
        return _unreadable("is not a config: its lists or mappings are nested hundreds deep.", None)


def read_value(text: str) -> Any:
    """Read one YAML value, as it stands after the colon of a key.

    Raises:
        ValueError: The text is not one plain YAML value; says why.

    >>> read_value("5e-4"), read_value("[q_proj, v_proj]"), read_value("")
    (0.0005, ['q_proj', 'v_proj'], None)
    """
    # The value stands in a one-key document, so that both ways of giving a value read it with the same rules.
    document = read_document("value: " + text)
    if document.problems:
        raise ValueError(document.problems[0].message)
    values = document.values
    if values is None or set(values) != {"value"}:
        raise ValueError("is more than one value.")
    return values["value"]


def _read(text: str) -> Document:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return _unreadable("is empty. A config has at least base_model and datasets.", None)
        if not isinstance(root, yaml.MappingNode):
            found = _NAMES[type(root)]
            return _unreadable(f"must be a mapping of keys to values, not {found}.", root.start_mark.line + 1)
        walk = _Walk(loader)
        values = walk.value(root, ())
        return Document(values, walk.lines, tuple(walk.problems))
    finally:
        loader.dispose()


def _unreadable(message: str, line: int | None) -> Document:
    return Document(None, problems=(Problem("", message, line=line),))


class _Walk:
    """One pass over the nodes; collects values, lines and problems."""

    def __init__(self, loader: _Loader) -> None:
        self.loader = loader
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []

    def value(self, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in _PLAIN_TAGS:
            self._problem(path, f"has the tag {node.tag}; only plain YAML values are read.", node)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        assert isinstance(node, yaml.SequenceNode)
        return [self._entry(item, (*path, index)) for index, item in enumerate(node.value)]

    def _entry(self, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        self.lines[join_path(path)] = node.start_mark.line + 1
        return self.value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: tuple[str | int, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(path, f"has {_NAMES[type(key)]} as a key; keys are words.", key)
                continue
            # The text as written: `on:` and `1:` are keys called "on" and "1", whatever type YAML gives them.
            inner = (*path, key.value)
            if key.value in values:
                self._problem(inner, f"given twice, first on line {self.lines[join_path(inner)]}.", key)
                continue
            self.lines[join_path(inner)] = key.start_mark.line + 1
            values[key.value] = self.value(value, inner)
        return values

    def _scalar(self, node: yaml.ScalarNode, path: tuple[str | int, ...]) -> Any:
        if node.tag in _NUMBER_TAGS and _STRANGE_NUMBER.match(node.value):
            message = f"is {node.value}, which YAML takes for a number of base 8 or 60."
            self._problem(path, message, node, "Write it without the leading zero or the colon, or put it in quotes.")
            return None
        try:
            return self.loader.construct_object(node)
        except (yaml.constructor.ConstructorError, ValueError, OverflowError):
            # An unknown tag, or a text that looks like a date or number and is none, such as 2024-13-45.
            self._problem(path, f"cannot be read as a YAML value: {node.value!r}.", node, "Put it in quotes.")
            return None

    def _problem(self, path: tuple[str | int, ...], message: str, node: yaml.Node, remedy: str = "") -> None:
        self.problems.append(Problem(join_path(path), message, line=node.start_mark.line + 1, remedy=remedy))
