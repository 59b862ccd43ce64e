"""`kill -9` at any moment, then `--resume auto`: the final adapter has the bits of the run that never stopped."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import pytest

RUN = """
import json, sys
import torch
torch.set_num_threads(1)
import bedstone
run = bedstone.finetune(json.loads(sys.argv[1]), resume="auto")
print(run.summary.weights_sha256)
"""


def command(config):
    return [sys.executable, "-c", RUN, json.dumps(config)]


def finish(config):
    done = subprocess.run(command(config), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.mark.slow
def test_three_killed_runs_end_with_the_bits_of_the_one_that_was_not(config, tmp_path):
    """Dropout, shuffling, two workers, several epochs; killed at random moments after the first step."""
    changes = {"max_steps": 60, "save_steps": 3, "dataloader_num_workers": 2, "gradient_accumulation_steps": 2}
    expected = finish(config(output_dir=str(tmp_path / "whole"), **changes))
    moments = random.Random(20)
    for number in range(3):
        folder = tmp_path / f"killed-{number}"
        values = config(output_dir=str(folder), **changes)
        child = subprocess.Popen(command(values), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        events = folder / "events.jsonl"
        while child.poll() is None and not (events.exists() and "training_step" in events.read_text()):
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 1.0))
        child.send_signal(signal.SIGKILL)
        killed = child.wait() == -signal.SIGKILL
        assert killed, "the run ended before it could be killed: make it longer"
        assert not (folder / "summary.json").exists()
        assert finish(values) == expected
