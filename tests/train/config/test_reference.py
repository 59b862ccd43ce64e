"""The page of all keys in the documentation is what the schema says today."""

from __future__ import annotations

from pathlib import Path

from bedstone.train.config.reference import markdown_table
from bedstone.train.config.schema import DatasetConfig, TrainConfig, sections

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "config.md"


def test_the_committed_page_is_current():
    """Otherwise: `python -m bedstone.train.config.reference > docs/reference/config.md`."""
    assert PAGE.read_text(encoding="utf-8") == markdown_table()


def test_every_key_has_a_row_with_a_meaning():
    """Name, value, default, meaning; a pipe inside a cell would break the table."""
    rows = [line for line in markdown_table().splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0].strip("`") for row in cells] == [*TrainConfig.model_fields, *DatasetConfig.model_fields]
    assert all(len(row) == 4 and all(row) and row[3].endswith(".") for row in cells)


def test_the_sections_hold_every_key_once():
    """A key that is added between two sections would be lost."""
    assert [key for keys in sections().values() for key in keys] == list(TrainConfig.model_fields)


def test_ranges_come_from_the_schema():
    """What is shown is what is checked."""
    rows = {
        line.split("`")[1]: line.split(" | ")[1] for line in markdown_table().splitlines() if line.startswith("| `")
    }
    assert rows["lora_dropout"] == "number ≥ 0, < 1"
    assert rows["learning_rate"] == "number > 0"
    assert rows["bf16"] == "`auto`, `true`, `false`"
    assert rows["adapter"] == "`lora`, `qlora` or empty"
    assert rows["lora_target_modules"] == "list of text or empty"
    assert rows["val_set_size"] == "whole number or number"
