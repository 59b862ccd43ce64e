"""pydantic's errors in the words of bedstone: key, rule, value, what to do.

pydantic finds all errors of a model at once, which is why it is used; its texts speak of Python types and links to its
own site, which is why they are replaced. Every error type that the schema can produce has its sentence here, and a test
walks through them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import Problem
from bedstone.train.config.key_path import join_path
from bedstone.train.config.known_keys import unknown_key, unknown_value
from bedstone.train.config.schema import DatasetConfig, TrainConfig

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_RULES = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping of keys to values",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or more",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be {le} or less",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "model_type": "must be a mapping with the keys of one data set",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "too_short": "must have at least {min_length} entry",
    "value_error": "{error}",
}


def from_pydantic(error: ValidationError) -> list[Problem]:
    """Return one problem for each error that pydantic found, paths as in the file, lines not yet known."""
    return [_problem(detail) for detail in error.errors(include_url=False)]


def shown(value: Any) -> str:
    """Return a value as it would stand in the file, cut to 60 characters.

    >>> shown("8"), shown(True), shown([1, "a"])
    ('"8"', 'true', '[1, "a"]')
    """
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - a line of a terminal holds it


def _problem(detail: ErrorDetails) -> Problem:
    kind, value = detail["type"], detail["input"]
    location = tuple(part for part in detail["loc"] if part != "[key]")
    path, fields = join_path(location), _fields_at(location)
    if kind == "missing":
        return Problem(path, "is missing.", None, remedy=fields[str(location[-1])].description or "")
    if kind == "extra_forbidden":
        message, remedy = unknown_key(str(location[-1]), fields, in_dataset=len(location) > 1, value=value)
        return Problem(path, message, value, remedy=remedy)
    if value is None:
        return _empty(path, fields.get(str(location[-1])))
    rule = _RULES[kind].format_map({name: _bound(limit) for name, limit in detail.get("ctx", {}).items()})
    return Problem(path, f"{rule}, not {shown(value)}.", value, remedy=_remedy(kind, str(location[-1]), value))


def _fields_at(location: tuple[int | str, ...]) -> dict[str, Any]:
    in_dataset = len(location) > 1 and location[0] in {"datasets", "test_datasets"}
    return dict((DatasetConfig if in_dataset else TrainConfig).model_fields)


def _empty(path: str, field: Any) -> Problem:
    if field is None or field.is_required():
        return Problem(path, "has no value.", None, remedy="Give one.")
    default = shown(field.get_default(call_default_factory=True))
    return Problem(path, "has no value.", None, remedy=f"Give one, or remove the line: the default is {default}.")


def _bound(limit: Any) -> Any:
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def _remedy(kind: str, key: str, value: Any) -> str:
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return "Put it in quotes."
    if kind == "list_type" and isinstance(value, str):
        return f"Write [{value}]."
    if kind in {"int_type", "float_type", "bool_type"} and isinstance(value, str):
        return "Remove the quotes." if _plain(value) else ""
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"Write {int(value)}."
    if kind == "string_type" and key == "type" and isinstance(value, dict):
        return "Prompt templates written in the config are not supported yet (planned); use `type: alpaca`."
    return unknown_value(key, value)


def _plain(text: str) -> bool:
    # Would the text, without quotes, be a number or a truth value?
    try:
        return isinstance(json.loads(text.lower()), (int, float))
    except ValueError:
        return False
