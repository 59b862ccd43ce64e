"""A result file says on what machine, with which versions and when its figures were taken."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def record(tmp_path):
    """The module, in a folder of its own, since it writes beside itself."""
    copy = tmp_path / "benchmarks" / "record.py"
    copy.parent.mkdir()
    shutil.copyfile(BENCHMARKS / "record.py", copy)
    spec = importlib.util.spec_from_file_location("record", copy)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_spread_is_the_middle_and_both_ends(record):
    assert record.spread([3.0, 1.0, 10.0]) == {"median": 3.0, "min": 1.0, "max": 10.0, "runs": 3}


def test_a_result_file_states_its_circumstances(record, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = record.write("speed", {"seconds": 2.5}, packages=("torch", "rich"))
    assert path == tmp_path / "benchmarks" / "results" / "speed.json"
    assert capsys.readouterr().out == "wrote benchmarks/results/speed.json\n"
    written = json.loads(path.read_text())
    assert list(written) == [
        "benchmark",
        "date",
        "commit",
        "python",
        "versions",
        "cpu",
        "cores",
        "load",
        "variables",
        "figures",
    ]
    assert (written["benchmark"], written["figures"]) == ("speed", {"seconds": 2.5})
    assert list(written["versions"]) == ["bedstone", "torch", "rich"]
    assert written["variables"]["OMP_NUM_THREADS"] == "1"
    assert written["python"] == sys.version.split()[0]
