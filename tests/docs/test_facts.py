"""The tables of the documentation say what the code says: names, reasons, events, commands, keys, tests."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from pathlib import Path

import typer.main

import bedstone
from bedstone.cli.app import app
from bedstone.cli.environment import OWN
from bedstone.core import logging as core_logging
from bedstone.core.device import reasons
from bedstone.core.registry import GROUPS
from bedstone.train.config.identity import NOT_HASHED

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def page(path: str) -> str:
    return (DOCS / path).read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows of a page."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_page_of_the_package_lists_every_public_name_with_its_first_line():
    """What is importable from `bedstone`, in its rooms."""
    listed = {row[0]: row[1] for row in rows(page("reference/bedstone.md")) if row[0].startswith("[")}
    expected = {}
    for public, room in bedstone._HOME.items():
        doc = inspect.getdoc(getattr(importlib.import_module(room), public)) or ""
        expected[f"[`{public}`][{room}.{public}]"] = doc.splitlines()[0]
    assert listed == expected


def test_the_page_on_devices_lists_every_reason_with_its_meaning():
    """The sentences are those below the codes in the source."""
    (enum,) = (node for node in ast.parse(inspect.getsource(reasons)).body if isinstance(node, ast.ClassDef))
    meanings = {}
    for code, meaning in zip(enum.body, enum.body[1:], strict=False):
        if isinstance(code, ast.Assign) and isinstance(meaning, ast.Expr):
            meanings[f"`{code.targets[0].id}`"] = meaning.value.value
    assert len(meanings) == len(reasons.Reason)
    listed = {row[0]: row[1] for row in rows(page("explanation/devices.md")) if re.fullmatch("`[A-Z_]+`", row[0])}
    assert listed == meanings


def test_the_page_on_run_folders_lists_every_event_with_its_fields():
    """Found in the source by their names, so that an event that is never imported counts too."""
    expected = {}
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Event" for base in node.bases):
                parts = [part for part in node.body if isinstance(part, ast.AnnAssign)]
                fields = [part.target.id for part in parts if "ClassVar" not in ast.unparse(part.annotation)]
                (event,) = (part.value.value for part in parts if part.target.id == "name")
                expected[event] = fields
    listed = {}
    for row in rows(page("how-to/read-a-run-folder.md")):
        for event in re.findall("`([a-z_]+)`", row[0]) if len(row) == 3 else ():
            listed[event] = re.findall("`([a-z_]+)`", row[2])
    own_rows = {event: fields for event, fields in expected.items() if event not in {"memory_usage", "metric"}}
    assert own_rows.pop("progress")  # never written to files; the page says so below the table
    assert {event: listed.get(event) for event in own_rows} == own_rows
    assert listed["memory_usage"] == expected["memory_usage"]
    assert set(listed) == set(expected) - {"progress"}


def test_the_page_on_the_command_line_has_every_command_option_and_variable():
    """As typer knows them."""
    text = page("reference/cli.md")
    command = typer.main.get_command(app)
    assert re.findall(r"^## bedstone (\w+)", text, re.MULTILINE) == list(command.commands)
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        words = section.split()
        if words[0] == "bedstone":
            found = command.commands[words[1]]
            of = [found, *getattr(found, "commands", {}).values()]
            options = {option for each in of for p in each.params for option in p.opts if option[:2] == "--"}
            assert set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)) == options - {"--debug", "--help"}
    assert {row[0].strip("`") for row in rows(text) if row[0].startswith("`BEDSTONE_")} == set(OWN)


def test_the_page_on_resuming_lists_the_keys_that_may_change():
    """All that leave the weights alone, but those whose change a checkpoint notices otherwise."""
    (listed,) = re.findall(r"since they change no weight: (.*?)\.", page("how-to/resume-a-run.md"), re.DOTALL)
    assert set(re.findall("`([a-z_]+)`", listed)) == set(NOT_HASHED) - {"output_dir", "sample_prompts", "test_datasets"}


def test_every_test_that_guards_against_a_defect_exists():
    """The page on the original names tests by path and name."""
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", page("explanation/from-the-document.md"))
    assert len(named) > 25
    for path, test in named:
        assert f"def {test}(" in (ROOT / "tests" / path).read_text(encoding="utf-8"), f"{path}::{test}"


def test_the_page_on_the_architecture_shows_the_contracts_of_the_project():
    """Layers and contracts as in pyproject.toml."""
    text = page("explanation/architecture.md")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert [row[0] for row in rows(text) if row[0] in {c["id"] for c in contracts}] == [c["id"] for c in contracts]
    drawn = re.search(r"```\n(cli .*?)```", text, re.DOTALL)[1]
    assert [re.split(r"\s{2,}", line)[0] for line in drawn.splitlines()] == contracts[0]["layers"]
    assert all(f"`{layer}`" in text for layer in contracts[1]["layers"])


def test_the_page_on_log_presets_lists_every_preset():
    """The classmethods of `LogConfig`."""
    members = vars(core_logging.LogConfig).items()
    presets = {f"`{name}()`" for name, member in members if isinstance(member, classmethod)}
    assert {row[0] for row in rows(page("how-to/add-a-log-preset.md"))} >= presets


def test_the_page_on_plug_ins_lists_every_group():
    """In the order of the registry."""
    assert [row[0].strip("`") for row in rows(page("how-to/write-a-plugin.md")) if "`bedstone." in row[0]] == [*GROUPS]
