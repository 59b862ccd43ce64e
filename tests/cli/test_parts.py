"""Optional parts are read from bedstone's own metadata; what is missing comes with the line that installs it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bedstone.cli.parts import PURPOSE, SINGLE_PACKAGES, Requirement, check_parts, own_requirements

ASKED = [Requirement("torch", "2.13"), Requirement("peft", "0.21", "train"), Requirement("ruff", "0.15", "dev")]
ALL = {"torch": "2.13.0+cpu", "peft": "0.21.2", "ruff": "0.17.6"} | dict.fromkeys(SINGLE_PACKAGES, "1.0")


def findings(installed, asked=ASKED):
    """What is said about each subject."""
    return {finding.subject: finding for finding in check_parts(asked, installed.get)}


def test_everything_there_is_green():
    """With its version."""
    found = findings(ALL)
    assert {finding.status for finding in found.values()} == {"ok"}
    assert found["bedstone"].text == "torch 2.13.0+cpu"
    assert found["bedstone[train]"].text == "peft 0.21.2"


def test_a_missing_part_says_what_it_is_for_and_how_to_get_it():
    """Yellow: it may be wanted."""
    found = findings({**ALL, "peft": None})["bedstone[train]"]
    assert found.status == "look"
    assert found.text == "missing peft; only for fine-tuning, that is `bedstone train` and `bedstone generate`"
    assert found.remedy == "pip install 'bedstone[train]'"


def test_what_only_developers_need_is_no_fault():
    """Green, with the line."""
    found = findings({**ALL, "ruff": None})["bedstone[dev]"]
    assert (found.status, found.remedy) == ("ok", "pip install 'bedstone[dev]'")


@pytest.mark.parametrize(("version", "text"), [(None, "missing torch"), ("2.9.1", "too old: torch 2.9.1 (needs 2.13)")])
def test_a_base_that_is_missing_or_old_is_broken(version, text):
    """Red: nothing works without it."""
    found = findings({**ALL, "torch": version})["bedstone"]
    assert (found.status, found.text) == ("bad", text)


def test_an_old_part_says_upgrade():
    """Versions compare as numbers: 0.9 is older than 0.21."""
    found = findings({**ALL, "peft": "0.9"})["bedstone[train]"]
    assert found.text.startswith("too old: peft 0.9 (needs 0.21); only for fine-tuning")
    assert found.remedy == "pip install --upgrade 'bedstone[train]'"


def test_a_single_package_that_is_missing_has_its_line():
    """Nothing here needs it, so it is green."""
    found = findings({**ALL, "accelerate": None})["accelerate"]
    assert (found.status, found.text) == (
        "ok",
        "not installed and not needed (used by transformers to place large models); pip install accelerate",
    )


@pytest.mark.parametrize(
    ("line", "requirement"),
    [
        ("torch>=2.13", Requirement("torch", "2.13")),
        ("torch<4,>=2.13", Requirement("torch", "2.13")),
        ("types-PyYAML; extra == 'dev'", Requirement("types-PyYAML", "", "dev")),
        ('gguf (>=0.19) ; python_version > "3.8" and extra == "gguf"', Requirement("gguf", "0.19", "gguf")),
    ],
)
def test_metadata_lines_are_read(line, requirement):
    """In the spellings that build tools write."""
    assert Requirement.parse(line) == requirement


def test_every_extra_of_the_project_has_a_purpose():
    """A new extra must say what it is for."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == set(PURPOSE)
    assert {requirement.extra for requirement in own_requirements()} == {"", *PURPOSE}
