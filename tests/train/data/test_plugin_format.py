"""The page "Add a data format" is true: its package, installed as it says, trains its rows; and the example runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
from bedstone.testing.tiny import tiny_tokenizer
from bedstone.train.config.schema import DatasetConfig
from bedstone.train.data import IGNORED, formats, load_split
tokenizer = tiny_tokenizer()
(example,) = load_split([DatasetConfig(type="trivia", path="cards.jsonl")], tokenizer).examples
print(example.source, tokenizer.decode([label for label in example.labels if label != IGNORED]))
"""


def run(*command, cwd, **environment):
    import os

    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(folder: Path) -> None:
    """Put the page's package into a folder the way pip would."""
    page = (ROOT / "docs/how-to/add-a-data-format.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (toml,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    project = tomllib.loads(toml)["project"]
    (folder / "acme_trivia.py").write_text(code)
    info = folder / f"acme_trivia-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def test_the_package_of_the_page_trains_its_rows(tmp_path):
    """By its entry point, in a fresh process, with warnings as errors."""
    install(tmp_path)
    (tmp_path / "cards.jsonl").write_text(json.dumps({"question": "How many legs has a spider?", "answer": "8"}) + "\n")
    assert run("-c", PROGRAM, cwd=tmp_path, PYTHONPATH=str(tmp_path)) == "cards.jsonl:1 8<|im_end|>\n"


def test_the_example_shows_what_is_learnt_and_refuses_a_broken_card(tmp_path):
    """Only the answers are trained."""
    out = run(str(ROOT / "examples/custom_data_format.py"), cwd=tmp_path)
    assert "and trains 'Jupiter<|im_end|>'" in out
    assert out.endswith("Refused: cards.jsonl:3: the answer 'dog' is none of the choices.\n")
