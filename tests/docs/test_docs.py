"""The documentation holds together: its code runs, its links lead somewhere, and no room or folder is left out."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest
import yaml

import bedstone

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "bedstone"
PAGES = (*sorted(DOCS.rglob("*.md")), *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")))

# Rooms that are not for other people's code; each is explained elsewhere.
NOT_IN_THE_REFERENCE = {
    "bedstone.cli": "the page on the command line",
    "bedstone.core.device.cuda": "one backend of core.device",
    "bedstone.core.json": "used by errors and events",
    "bedstone.train.models": "a stage of finetune",
    "bedstone.train.report": "a stage of finetune",
}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def program(text: str) -> str:
    """The `python` blocks of a page as one program, each line with the number that it has in the page."""
    lines, kind, before = [], None, ""
    for line in text.splitlines():
        fence = line.startswith("```")
        if fence:
            skipped = before.startswith("<!-- not run")
            kind = None if kind is not None else "skipped" if skipped else line.strip("`").strip()
        lines.append(line if kind == "python" and not fence else "")
        before = line.strip() or before
    return "\n".join(lines) + "\n"


def prose(text: str) -> str:
    """A page without its code, in blocks and in lines."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def links(page: Path) -> list[str]:
    """The targets of `[text](target)` that are not on the web."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8")))
    return [link for link in found if "://" not in link]


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in a link."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def documented() -> list[str]:
    """The modules that the reference renders, one for each `::: module`."""
    pages = sorted((DOCS / "reference").rglob("*.md"))
    return [
        room for page in pages for room in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]


def in_nav(entry) -> list[str]:
    """The pages below an entry of mkdocs' navigation."""
    if isinstance(entry, str):
        return [entry]
    return [page for child in (entry.values() if isinstance(entry, dict) else entry) for page in in_nav(child)]


CODE = [page for page in PAGES if program(page.read_text(encoding="utf-8")).strip()]


@pytest.mark.parametrize("page", CODE, ids=name)
def test_the_code_of_a_page_runs(page, run_page):
    """From top to bottom, in an empty folder and a process that nothing else has touched, with warnings as errors."""
    status, output = run_page(program(page.read_text(encoding="utf-8")), page.name)
    assert status == 0, output


def test_code_keeps_the_lines_of_its_page_and_leaves_out_what_is_marked():
    """So that a failure names the line to look at."""
    page = "# A\n\n```python\nx = 1\n```\n\n<!-- not run: why -->\n```python\nraise\n```\n\n```\ny\n```\n\n```python\nx\n```\n"
    assert program(page).splitlines() == ["", "", "", "x = 1", *[""] * 12, "x", ""]


def test_a_failure_names_the_line_of_the_page(run_page):
    """Otherwise a passing page would prove nothing."""
    status, output = run_page("\n\nimport warnings\nwarnings.warn('old')\n", "page.md")
    assert status == 1
    assert re.search(r'page\.py", line 4, in <module>\n.*\nUserWarning: old', output, re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    """To a file, and to a heading in it."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} in {name(page)}"
        assert not anchor or anchor in anchors(target), f"{link} in {name(page)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_names_in_links_are_objects_in_the_reference(page):
    """`[text][bedstone.room.Name]`: the room has a page, and the name is in the room."""
    for path in re.findall(r"\]\[(bedstone[\w.]*)\]", prose(page.read_text(encoding="utf-8")).replace("``", "")):
        assert any(f"{path}.".startswith(f"{room}.") for room in documented()), f"{path} in {name(page)}"
        pkgutil.resolve_name(path)  # raises when there is no such thing


def test_every_page_is_in_the_navigation():
    """And the navigation names no page that is not there."""
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), yaml.SafeLoader)["nav"]
    assert sorted(in_nav(nav)) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_every_room_has_a_page_in_the_reference():
    """A new room is documented, or left out by name with a reason."""
    found = [module.name for module in pkgutil.walk_packages(bedstone.__path__, "bedstone.") if module.ispkg]
    core = [module.name for module in pkgutil.iter_modules(bedstone.core.__path__, "bedstone.core.")]
    rooms = {*found, *core} - {"bedstone.core", *NOT_IN_THE_REFERENCE}
    assert rooms <= set(documented())
    assert len(set(documented())) == len(documented())
    assert set(NOT_IN_THE_REFERENCE) <= {*found, *core}


def test_every_source_folder_has_a_readme():
    """Of about ten lines: what it holds, what it may import, how to extend it."""
    folders = {file.parent for file in SOURCE.rglob("*.py")}
    for folder in folders:
        readme = folder / "README.md"
        assert readme.is_file(), f"{folder} has no README.md"
        assert 4 <= len(readme.read_text(encoding="utf-8").splitlines()) <= 25, readme
