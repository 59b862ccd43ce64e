"""The page "Add a quantization scheme" is true: its package, installed as it says, packs, adapts, is stored and passes its own test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/add-a-quantization-scheme.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PROGRAM = """
import io, sys
import torch
import bedstone as bs
assert "acme_affine" not in sys.modules
model = torch.nn.Sequential(torch.nn.Linear(65, 8))
print(bs.quantize(model, "affine4"))
file = io.BytesIO()
torch.save(model.state_dict(), file)
file.seek(0)
weight = torch.load(file, weights_only=True)["0.weight"]
assert torch.equal(weight.dequantize(), model[0].weight.dequantize())
tensors, metadata = bs.quant.formats.flatten_state_dict(model.state_dict())
assert sorted(tensors) == ["0.bias", "0.weight.codes", "0.weight.low", "0.weight.step"]
print(bs.quant.formats.unflatten_state_dict(tensors, metadata)["0.weight"])
"""


def run(*command, folder):
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-W", "error", *command]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The page's package in a folder, the way pip would put it there."""
    folder = tmp_path_factory.mktemp("site")
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    project = tomllib.loads(toml)["project"]
    (folder / "acme_affine.py").write_text(BLOCKS[0])
    info = folder / f"acme_affine-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["bedstone.quantizers"]
    lines = [f"{name} = {target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[bedstone.quantizers]", *lines]) + "\n")
    return folder


def test_is_found_by_its_entry_point_and_stored_under_its_name(package):
    """In a fresh process that never mentions the package."""
    out = run(
        "-c", PROGRAM.replace("import bedstone as bs", "import bedstone as bs, bedstone.quant.formats"), folder=package
    )
    assert out == (
        "affine4: 1 layers packed, 2,080 bytes became 328.\n"
        "QuantizedTensor(affine4, shape=(8, 65), dtype=torch.float32, device=cpu, 5.046 bits a weight)\n"
    )


def test_passes_the_test_that_the_page_gives_it(package):
    """With the bound of half a step."""
    (test,) = (block for block in BLOCKS if "check_quantizer" in block)
    run("-c", test + "\ntest_affine4()\n", folder=package)


def test_the_page_and_the_example_show_the_same_scheme():
    """So that neither is forgotten."""
    example = (ROOT / "examples/custom_quantizer.py").read_text(encoding="utf-8")
    shown = [line.strip() for line in BLOCKS[0].splitlines() if line.startswith("        ")]
    assert shown
    assert all(line in example for line in shown)
