"""A program that runs the code of documentation pages, each in a fork of its own: `python page_runner.py < requests`.

It imports the heavy packages once and then reads one JSON object a line, `{"script": ..., "folder": ...}`. The child runs
the script in the folder with warnings as errors; its output and its exit status are answered as one JSON object a line.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
import warnings

import peft  # noqa: F401 - before the fork, so that a page does not pay for it
import torch
import transformers  # noqa: F401 - the same

import bedstone.train.run  # noqa: F401 - the same
from bedstone.core.device import CpuFallbackWarning


def run(script: str, folder: str) -> None:
    os.chdir(folder)
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.simplefilter("default", CpuFallbackWarning)  # what a page on devices is about
    runpy.run_path(script, run_name="page")


def answer(script: str, folder: str) -> dict[str, object]:
    """Fork, run, wait; the child writes into a file, since a pipe could fill."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            status = 1
            try:
                run(script, folder)
                status = 0
            except BaseException:  # noqa: BLE001 - whatever a page raises is reported; the child ends here
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return {"status": os.waitstatus_to_exitcode(status), "output": output.read()}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)
