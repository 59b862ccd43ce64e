"""The command answers at once: help and version need no torch, and `python -m bedstone` is the same command."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from bedstone import __version__
from bedstone.cli.app import app

PLAIN = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100"}


def run(*arguments, **options):
    """The real command in a process of its own."""
    command = [sys.executable, "-m", "bedstone", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=PLAIN, **options)


def test_help_lists_every_command():
    """And each has a sentence."""
    done = run("--help")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    described = [line.split()[0] for line in lines[lines.index("Commands:") + 1 :] if len(line.split()) > 2]
    assert described == ["doctor", "validate", "train", "generate", "quantize", "kernels"]


def test_help_is_quick():
    """Under 0.3 s; the best of several, since other work shares the machine."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        run("--help")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["doctor", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    """No torch, and no yaml or rich markdown either."""
    program = (
        "import sys\n"
        "from bedstone.cli import main\n"
        f"sys.argv = ['bedstone', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'numpy', 'transformers', 'yaml', 'rich.markdown', 'bedstone.core'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version_is_the_package_version():
    """One place says it."""
    assert run("--version").stdout == f"bedstone {__version__}\n"


def test_without_a_command_the_help_is_shown():
    """Nothing is guessed."""
    assert "Usage: bedstone [OPTIONS] COMMAND" in CliRunner().invoke(app, [], prog_name="bedstone").output


def test_a_mistyped_option_is_an_error_of_the_user():
    """Exit code 2, and the option is named."""
    done = run("train", "run.yaml", "--resum", "auto")
    assert done.returncode == 2
    assert "No such option: --resum" in done.stderr
