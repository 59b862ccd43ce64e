"""The page on tuners quotes its result file, nothing else, and in that file every tuner works on every scheme."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_says_what_the_result_file_says():
    """After a new run: `python benchmarks/tuner_table.py --write`."""
    words = [sys.executable, ROOT / "benchmarks" / "tuner_table.py", "--quote"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "explanation" / "tuners.md").read_text(encoding="utf-8")
    assert printed.strip()
    assert printed.strip() in page


def test_every_tuner_works_on_every_scheme():
    """No cell of ours is anything but fine, and none is missing."""
    figures = json.loads((ROOT / "benchmarks" / "results" / "tuner_table.json").read_text(encoding="utf-8"))["figures"]
    assert len(figures["tuners"]) == 13
    assert len(figures["ours"]) == 6
    for base in figures["ours"]:
        cells = {tuple(cell["cell"]): cell["outcome"] for cell in figures["bases"][base]}
        assert len(cells) == 13 * 5
        assert set(cells.values()) <= {"ok", "no weights", "not ours"}
