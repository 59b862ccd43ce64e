"""The page "Add a kernel" is true: its package, installed as it says, is chosen first and computes what ours does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/add-a-kernel.md").read_text(encoding="utf-8")
PROGRAM = """
import sys
import torch
import bedstone as bs
from bedstone.kernels import explain, policy
assert "acme_kernels" not in sys.modules
layer = torch.nn.Linear(64, 8)
bs.quantize(layer, "int8")
x = torch.randn(1, 64)
found = layer(x)
assert "acme_kernels" in sys.modules
with policy("reference"):
    torch.testing.assert_close(found, layer(x))
print(explain("int8_linear", shape=(1, 64, 64)))
print(explain("int8_linear", shape=(2, 64, 64)).rejected[0])
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The page's package in a folder, the way pip would put it there."""
    folder = tmp_path_factory.mktemp("site")
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    project = tomllib.loads(toml)["project"]
    (folder / "acme_kernels.py").write_text(blocks[0] + blocks[1])
    info = folder / f"acme_kernels-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {target}" for name, target in project["entry-points"]["bedstone.kernels"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[bedstone.kernels]", *lines]) + "\n")
    return folder


def run(*words, folder):
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_is_found_by_its_entry_point_and_taken_first(package):
    """In a fresh process that never mentions the package."""
    assert run("-c", PROGRAM, folder=package) == (
        "linear_8bit on cpu, float32, 1x64x64: acme (exact)\n('acme', 'it takes one token')\n"
    )


def test_the_commands_show_it(package):
    """In front of ours."""
    listed = run("-m", "bedstone", "kernels", "list", folder=package)
    assert "acme (exact), triton (exact), native_rounded (rounded), native (exact), reference (exact)" in " ".join(
        listed.split()
    )
    assert "linear_8bit: acme, " in run("-m", "bedstone", "kernels", "test", "int8_linear", folder=package)
