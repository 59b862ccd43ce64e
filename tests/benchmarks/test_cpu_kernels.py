"""The benchmark of the CPU kernels runs to its end, tells numerics classes apart, and the page says what its result file says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bedstone.kernels import KernelSpec, operation

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def run(script, *words, **variables):
    command = [sys.executable, BENCHMARKS / script, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The file of a quick run, on a machine where nobody built ggml."""
    folder = tmp_path_factory.mktemp("results")
    words = ("--quick", "--seconds", "0.001", "--folder", folder)
    run("cpu_kernels.py", *words, BEDSTONE_CACHE=str(folder / "nothing"))
    return folder / "cpu_kernels.json"


@pytest.fixture
def figures(result):
    return json.loads(result.read_text(encoding="utf-8"))["figures"]


def found(figures, op, scheme="", inputs=0, dtype="float32"):
    key = (op, scheme, inputs, dtype)
    (case,) = (c for c in figures["cases"] if (c["op"], c["scheme"], c["inputs"], c["dtype"]) == key)
    return case["contestants"]


@pytest.mark.slow
def test_every_implementation_that_can_takes_part_in_every_product(figures):
    """None is left out in silence, and each states its numerics and keeps them."""
    bound = {"exact": 2e-6, "rounded": 1e-3, "approximate": 0.05}
    for inputs in (1, 8, 64, 512):
        contestants = found(figures, "linear", inputs=inputs)
        for scheme in ("nf4", "fp4", "int8", "fp8", "ternary"):
            op, spec = operation(f"{scheme}_linear"), KernelSpec("cpu", torch.float32, inputs, 128, 256)
            spec = spec._replace(options="float8" if scheme == "fp8" else "")
            able = {f"bedstone {scheme} {each.name}": each for each in op.implementations if not each.cannot(spec)}
            mine = {name for name in contestants if name.startswith(f"bedstone {scheme} ")}
            assert mine == able.keys()
            for name, each in able.items():
                assert contestants[name]["numerics"] == each.numerics
                assert contestants[name]["error"] < bound[each.numerics]
        assert {
            "torch fp32",
            "torch fbgemm dynamic int8",
            "aten int4pack bf16",
            "bitsandbytes nf4",
        } < contestants.keys()
        assert all(each["ms"] > 0 for each in contestants.values())


@pytest.mark.slow
def test_storing_is_that_of_bitsandbytes_and_measured_like_with_like(figures):
    """The same bits; a kernel that writes into memory that is there stands beside another such kernel."""
    assert figures["identical_bits"] is True
    assert found(figures, "dequantize into a buffer", "nf4")["bitsandbytes C kernel"]["error"] == 0
    for dtype in ("float32", "bfloat16"):
        assert "bitsandbytes API" in found(figures, "dequantize", "nf4", dtype=dtype)
    assert "bitsandbytes API" in found(figures, "quantize", "nf4")


@pytest.mark.slow
def test_a_verdict_is_the_quotient_of_its_own_class(figures):
    """What another class reaches stands beside it, and decides nothing."""
    verdicts = [each for each in figures["targets"] if each["kind"] == "time" and each["value"] is not None]
    assert verdicts
    for each in verdicts:
        scheme = "" if each["op"] == "linear" else each["scheme"]
        contestants = found(figures, each["op"], scheme, each["inputs"])
        mine, peer = contestants[each["ours"]], contestants[each["peer"]]
        assert mine["numerics"] == each["numerics"]
        assert each["numerics"] not in each["others"]
        assert each["value"] == pytest.approx(peer["ms"] / mine["ms"])
        assert each["met"] is (each["value"] >= each["least"])


@pytest.mark.slow
def test_what_was_not_measured_is_neither_met_nor_missed(figures):
    """Without ggml the file says why, and targets beside it stay open unless there is nothing of ours."""
    assert figures["ggml"].startswith("ggml is left out")
    beside = [each for each in figures["targets"] if any("ggml" in peer for peer in each["beside"])]
    assert beside
    assert all(each["value"] is None and each["why"] for each in beside)
    assert all(each["met"] is None for each in beside if each["ours"])
    assert figures["missed"] == sum(each["met"] is False and not each["stretch"] for each in figures["targets"])


@pytest.mark.slow
def test_the_page_has_every_target_and_every_contestant(result, figures):
    printed = run("cpu_kernel_page.py", "--folder", result.parent)
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    names = ("scheme", "op", "inputs", "kind", "numerics", "implementation", "beside", "stretch")
    wanted = {tuple(str(each[name]) for name in names) for each in figures["targets"]}
    first = rows.index(next(row for row in rows if row.startswith("| operation | numerics | beside ")))
    assert len(rows[first + 1 :][: len(wanted)]) == len(wanted)
    assert rows[first + 1 + len(wanted)].startswith("| who | numerics | M = 1")
    for name in found(figures, "linear", inputs=1):
        assert any(row.startswith(f"| {name} |") for row in rows)


def test_the_page_says_what_the_result_file_says():
    """After a new run: `python benchmarks/cpu_kernel_page.py --write`."""
    page = (ROOT / "docs" / "explanation" / "kernels.md").read_text(encoding="utf-8")
    begin, end = "<!-- cpu kernels: written by benchmarks/cpu_kernel_page.py -->", "<!-- end of cpu kernels -->"
    assert f"{begin}\n\n{run('cpu_kernel_page.py')}\n{end}" in page


def test_the_result_file_is_held_against_the_targets_as_they_are(tmp_path):
    """A target that is changed changes the verdicts. After that: `python benchmarks/cpu_kernels.py --judge`."""
    recorded = (BENCHMARKS / "results" / "cpu_kernels.json").read_text(encoding="utf-8")
    (tmp_path / "cpu_kernels.json").write_text(recorded, encoding="utf-8")
    assert " targets missed" in run("cpu_kernels.py", "--judge", "--folder", tmp_path)
    assert (tmp_path / "cpu_kernels.json").read_text(encoding="utf-8") == recorded


def test_a_quick_run_never_replaces_the_result_file():
    words = [sys.executable, BENCHMARKS / "cpu_kernels.py", "--quick"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--quick measures nothing worth keeping" in done.stderr
