"""The README quotes the result files, nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readme_says_what_the_result_files_say():
    """After a new measurement: `python benchmarks/quote.py --write`."""
    printed = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "quote.py"], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() in (ROOT / "README.md").read_text(encoding="utf-8")
