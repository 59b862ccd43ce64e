"""What the tests of `repro` share: real child processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Writing to a disk that others use too has no fixed time.
settings.register_profile("bedstone", deadline=None)
settings.load_profile("bedstone")


@pytest.fixture
def run_python():
    """Return a function that runs a script in a fresh interpreter and returns what it printed."""

    def run(script: str, *arguments: object, cwd: Path | None = None) -> str:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def start_python():
    """Return a function that starts a script and waits for its first line; all are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
