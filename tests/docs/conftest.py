"""One program runs the code of all pages; it is started when the first page asks for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def run_page(tmp_path_factory):
    """A function that runs a program in a fresh folder and returns exit status and output."""
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    quiet["TRITON_INTERPRET"] = "1"  # as the page on kernel frameworks says; transformers imports Triton before it
    command = [sys.executable, str(Path(__file__).with_name("page_runner.py"))]
    runner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet)

    def run(source: str, page: str) -> tuple[int, str]:
        folder = tmp_path_factory.mktemp("page")
        script = tmp_path_factory.mktemp("script") / Path(page).with_suffix(".py").name
        script.write_text(source, encoding="utf-8")
        runner.stdin.write(json.dumps({"script": str(script), "folder": str(folder)}) + "\n")
        runner.stdin.flush()
        answer = json.loads(runner.stdout.readline())
        return answer["status"], answer["output"]

    yield run
    runner.stdin.close()
    runner.stdout.close()
    runner.wait()
