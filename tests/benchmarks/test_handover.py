"""The page on kernel frameworks quotes the result file, and the promise that it repeats is in the figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def result():
    return json.loads((ROOT / "benchmarks" / "results" / "handover.json").read_text(encoding="utf-8"))


def test_the_page_says_what_the_result_file_says():
    """After a new run: `python benchmarks/handover.py --write`."""
    words = [sys.executable, ROOT / "benchmarks" / "handover.py", "--table"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "how-to" / "share-memory-with-a-kernel-framework.md").read_text(encoding="utf-8")
    assert f"<!-- table: written by benchmarks/handover.py -->\n\n{printed}\n<!-- end of table -->" in page


def test_a_hand_over_stays_within_its_bound():
    """1.5 times a bare call, and less than a hundredth of a product."""
    assert result()["figures"]["missed"] == []
