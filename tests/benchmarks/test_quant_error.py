"""The page on what quantization loses quotes its result file, and what it says in words is in the figures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "quantization-error.md"


@pytest.fixture(scope="module")
def figures():
    """The result file."""
    return json.loads((ROOT / "benchmarks" / "results" / "quant_error.json").read_text(encoding="utf-8"))["figures"]


def row(rows, package, scheme, options):
    """The figures of one quantizer."""
    (found,) = (r for r in rows if (r["package"], r["scheme"], r["options"]) == (package, scheme, options))
    return found


def numbers(value):
    """All numbers within lists and dictionaries, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, (int, float)) else []


def test_the_page_says_what_the_result_file_says():
    """After a new run: `python benchmarks/quant_error_page.py --write`."""
    words = [sys.executable, ROOT / "benchmarks" / "quant_error_page.py"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    quoted = re.findall(
        r"<!-- \w+: written by .*? -->\n(.*?)\n<!-- end of \w+ -->", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(quoted) == 2
    assert printed == "\n\n".join(quoted) + "\n"


def test_every_peer_was_there(figures):
    """A table without a peer would flatter."""
    assert figures["missing"] == []
    for part in ("weights", "predictions"):
        assert {r["package"] for r in figures[part]["rows"]} == {
            "bedstone",
            "bitsandbytes",
            "torchao",
            "optimum-quanto",
        }


@pytest.mark.parametrize("part", ["weights", "predictions"])
@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("nf4", "blocks of 64"),
        ("nf4", "blocks of 64, double quantization"),
        ("fp4", "blocks of 64"),
        ("int8", "a scale a row"),
    ],
)
def test_the_formats_of_bitsandbytes_have_its_error(figures, part, scheme, options):
    """To the last digit in 4 bits, whose values are the same; of int8 the codes are, and products round in another order."""
    ours, theirs = (row(figures[part]["rows"], package, scheme, options) for package in ("bedstone", "bitsandbytes"))
    measured = [key for key in ours if key not in {"package", "note", "bits_per_weight", "same_values_as"}]
    same = 0 if scheme != "int8" else 1e-3
    assert numbers([ours[key] for key in measured]) == pytest.approx(
        numbers([theirs[key] for key in measured]), rel=same
    )
    if part == "weights":
        assert ours["bits_per_weight"] <= theirs["bits_per_weight"]
    elif scheme != "int8":
        assert theirs["same_values_as"] == f"bedstone {scheme}, {options}"


def test_what_the_page_says_of_the_weights(figures):
    """NF4 beats the even grids of 4 bits; blocks take a third off int8's error; 2 bits lose half."""
    rows = figures["weights"]["rows"]
    nf4 = row(rows, "bedstone", "nf4", "blocks of 64")["error"]
    assert nf4 < row(rows, "torchao", "IntxWeightOnly int4", "symmetric, blocks of 64")["error"]
    assert nf4 < row(rows, "optimum-quanto", "qint4", "affine, blocks of 128")["error"]
    by_row, by_block = (row(rows, "bedstone", "int8", o)["error"] for o in ("a scale a row", "blocks of 64"))
    assert 0.6 < by_block / by_row < 0.7
    two_bits = [r["error"] for r in rows if r["scheme"] in {"ternary", "qint2"}]
    assert len(two_bits) == 3
    assert all(0.5 < error < 0.6 for error in two_bits)


def test_the_predictions_are_said_to_be_those_of_quantized_weights(figures):
    """At least two texts, and nearly all of the weights Q4_1 before anybody packed them."""
    predictions = figures["predictions"]
    assert len(predictions["texts"]) >= 2
    assert predictions["gguf"] == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
    assert "**these weights were quantized before**" in PAGE.read_text(encoding="utf-8")
