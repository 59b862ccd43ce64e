"""The benchmark of what the registry costs runs to its end and measures what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_it_measures_the_registry_and_the_hand_over(tmp_path):
    """One round: times mean nothing here, that a bound operation costs less than one that is asked does."""
    words = [sys.executable, BENCHMARKS / "registry_overhead.py", "--rounds", "1", "--folder", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: a target was missed
    figures = json.loads((tmp_path / "registry_overhead.json").read_text(encoding="utf-8"))["figures"]
    cases = {case["what"]: case for case in figures["cases"]}
    assert cases["the same, bound"]["median"] < cases["an operation of the registry"]["median"]
    assert cases["linear_4bit, bound"]["median"] < cases["linear_4bit as layers call it"]["median"]
    assert cases["a hand-over without a copy"]["median"] > 0
    assert figures["missed"] == [what for what, case in cases.items() if not case["met"]]
    assert figures["kernel_ns"] > 0
