"""A contestant in a process of its own that works when it is told to: while one does, the others wait."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


class Arm:
    """A script that was started with `--serve` and answers each line on stdin with one line of JSON on stdout.

    Attributes:
        first: What it said when it was ready.
        answers: What it has answered since.
    """

    def __init__(self, script: str, *words: str) -> None:
        command = [sys.executable, "-W", "ignore", script, "--serve", *words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first = self._read()
        self.answers: list[dict[str, Any]] = []

    def turn(self) -> None:
        """Let it work once."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.answers.append(self._read())

    def close(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"an arm ended: {self.process.args}")
        return json.loads(line)
