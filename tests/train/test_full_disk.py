"""A disk that fills up stops the run with one sentence; the last checkpoint stays good and the run can go on."""

from __future__ import annotations

import json
import subprocess
import sys

import bedstone as bs
from bedstone.repro import verify_folder

# From the second checkpoint on, the system refuses files beyond 20 kB: a real failure of a real write.
RUN = """
import json, resource, signal, sys
import torch
torch.set_num_threads(1)
import bedstone
from bedstone.core.events import add_sink
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def fill(event):
    if event.name == "checkpoint_written" and event.step == 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

add_sink(fill)
try:
    bedstone.finetune(json.loads(sys.argv[1]))
except bedstone.StorageError as error:
    print(error)
    sys.exit(2)
"""


def test_the_last_checkpoint_stays_good_and_the_run_goes_on(config, tmp_path):
    """Room made again, the resumed run ends with the bits of one that had room all along."""
    values = config(save_total_limit=5)
    done = subprocess.run([sys.executable, "-c", RUN, json.dumps(values)], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "step-000006" in done.stdout
    assert "File too large" in done.stdout
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-000002", "step-000004"]
    for path in checkpoints.iterdir():
        verify_folder(path)
    resumed = bs.finetune(values, resume="auto")
    whole = bs.finetune(config(output_dir=str(tmp_path / "whole")))
    assert resumed.summary.weights_sha256 == whole.summary.weights_sha256
