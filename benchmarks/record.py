"""What every result file says besides its figures: machine, versions, commit, load, date."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
CORES = len(os.sched_getaffinity(0))  # of the machine: OMP_PROC_BIND takes this process to one of them with torch


def spread(values: list[float]) -> dict[str, float]:
    """Return median, smallest and largest of repeated measurements."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def write(
    name: str, figures: dict[str, Any], *, packages: tuple[str, ...] = ("torch",), folder: Path = RESULTS
) -> Path:
    """Write `results/<name>.json`, or into another folder, and return its path; prints where it lies."""
    path = folder / f"{name}.json"
    folder.mkdir(exist_ok=True)
    path.write_text(json.dumps({"benchmark": name, **_circumstances(packages), "figures": figures}, indent=2) + "\n")
    home = Path(__file__).parent.parent
    print(f"wrote {path.relative_to(home) if path.is_relative_to(home) else path}")
    return path


def _circumstances(packages: tuple[str, ...]) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("bedstone", *packages)},
        "cpu": _cpu(),
        "cores": CORES,
        "load": [round(value, 2) for value in os.getloadavg()],
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(("OMP_", "GOMP_"))},
    }


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = values.get("flags", "").split()
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else platform.machine()
    return f"{values.get('model name', 'a CPU')}, {vectors}"
