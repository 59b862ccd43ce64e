"""The table of all keys as Markdown, made from the schema; `docs/reference/config.md` is its output."""

from __future__ import annotations

from typing import Any

from bedstone.train.config.problems import shown
from bedstone.train.config.schema import DatasetConfig, TrainConfig, sections

_HEAD = """# Config keys

This page is made from the schema: `python -m bedstone.train.config.reference > docs/reference/config.md`.
How to write a config is told in [Configure a run](../how-to/configure-a-run.md).

An unknown key is an error, and so is a key that has no effect beside the others. Names are axolotl's where axolotl has
the key. "or empty" means that the key may have no value.
"""
_DATASET_HEAD = "## An entry of `datasets` and `test_datasets`"
_COLUMNS = "| key | value | default | meaning |\n|---|---|---|---|"
_KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "null": "empty",
    "object": "mapping",
}
_BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}


def markdown_table() -> str:
    """Return the page of all keys: name, value, default and meaning, by section.

    >>> [line for line in markdown_table().splitlines() if line.startswith("| `lora_r`")][0].split(" | ")[:3]
    ['| `lora_r`', 'whole number ≥ 1', '`8`']
    """
    parts = [_HEAD]
    rows = _rows(TrainConfig)
    for title, keys in sections().items():
        parts += [f"## {title}\n", _COLUMNS, *(rows[key] for key in keys), ""]
    parts += [f"{_DATASET_HEAD}\n", _COLUMNS, *_rows(DatasetConfig).values(), ""]
    return "\n".join(parts)


def _rows(model: type[TrainConfig | DatasetConfig]) -> dict[str, str]:
    properties = model.model_json_schema()["properties"]
    return {key: _row(key, model.model_fields[key], properties[key]) for key in model.model_fields}


def _row(key: str, field: Any, schema: dict[str, Any]) -> str:
    if field.is_required():
        default = "required"
    else:
        value = field.get_default(call_default_factory=True)
        default = "empty" if value is None else f"`{shown(value)}`"
    return f"| `{key}` | {_kind(schema)} | {default} | {field.description} |"


def _kind(schema: dict[str, Any]) -> str:
    """Return what a value may be, in words, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{_word(option)}`" for option in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    if "$ref" in schema:
        return "mappings, see below"
    bounds = [text.format(schema[name]) for name, text in _BOUNDS.items() if name in schema]
    return " ".join([_KINDS[schema["type"]], ", ".join(bounds)]).strip()


def _word(option: Any) -> str:
    return option if isinstance(option, str) else shown(option)


if __name__ == "__main__":
    print(markdown_table(), end="")  # noqa: T201 - the page is its output
