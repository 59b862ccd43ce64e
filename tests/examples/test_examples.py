"""Every example runs as it stands, without a network, and says something; the plug-in package installs and is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
PLUGIN = EXAMPLES / "plugin_package"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_example_runs_and_prints(path, tmp_path):
    """In an empty folder, with warnings as errors; what it means to show as a warning it catches."""
    words = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=OFFLINE)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3
    assert done.stderr == ""


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_example_fits_on_a_page_or_two(path):
    """An example that nobody reads helps nobody."""
    assert len(path.read_text().splitlines()) <= 120


@pytest.fixture(scope="module")
def installed_plugin(tmp_path_factory):
    """A folder with the plug-in package installed into it, and the environment that sees it."""
    folder = tmp_path_factory.mktemp("plugin")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    words = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(PLUGIN)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**OFFLINE, "PYTHONPATH": str(folder)}


@pytest.mark.slow
def test_doctor_lists_the_installed_plug_in(installed_plugin):
    """Green, with its package."""
    words = [sys.executable, "-m", "bedstone", "doctor"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=installed_plugin)
    assert done.returncode == 0, done.stdout + done.stderr
    line = "  ok   bedstone.datasets: flashcards: bedstone_flashcards:Flashcards of bedstone-flashcards 0.1.0\n"
    assert line in done.stdout


@pytest.mark.slow
def test_a_run_can_use_the_installed_plug_in(installed_plugin, tmp_path):
    """The format is known to the configuration, and its cards become examples."""
    (tmp_path / "cards.tsv").write_text("question\tanswer\nWhat barks?\tA dog.\nWhat meows?\tA cat.\n")
    dataset = {"type": "flashcards", "path": "cards.tsv"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"base_model": "tiny", "datasets": [dataset], "max_steps": 1}))
    program = (
        "from bedstone.testing import tiny_tokenizer\n"
        "from bedstone.train.config import load_config\n"
        "from bedstone.train.data import IGNORED, load_split\n"
        "tokenizer = tiny_tokenizer()\n"
        "for example in load_split(load_config('run.yaml').datasets, tokenizer).examples:\n"
        "    print(example.source, tokenizer.decode([i for i in example.labels if i != IGNORED]))\n"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=installed_plugin, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "cards.tsv:2 A dog.<|im_end|>\ncards.tsv:3 A cat.<|im_end|>\n"
