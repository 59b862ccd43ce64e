"""The page on ternary models quotes its result file, nothing else, and the result file holds what the page promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_says_what_the_result_file_says():
    """After a new measurement: `python benchmarks/bitlinear_loss.py --write`."""
    words = [sys.executable, ROOT / "benchmarks" / "bitlinear_loss.py", "--quote"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "how-to" / "train-a-ternary-model.md").read_text(encoding="utf-8")
    assert printed.strip()
    assert printed.strip() in page


def test_the_measurement_is_a_fair_one_that_met_its_target():
    """Three seeds, both arms with their own best learning rate, which lies inside of the rates that were tried."""
    figures = json.loads((ROOT / "benchmarks" / "results" / "bitlinear_loss.json").read_text())["figures"]
    assert len({run["seed"] for run in figures["runs"]}) == 3
    for arm, losses in figures["validation_loss_by_rate"].items():
        best = min(losses, key=losses.get)
        assert float(best) == figures["rates"][arm]
        assert best not in {next(iter(losses)), list(losses)[-1]}
    for run in figures["runs"]:
        dense, ternary = run["dense"], run["ternary"]
        assert ternary["loss"] <= figures["target_ratio"] * dense["loss"]
        assert abs(ternary["packed_loss"] - ternary["loss"]) < 1e-3
        assert dense["rounded_loss"] > ternary["loss"]
