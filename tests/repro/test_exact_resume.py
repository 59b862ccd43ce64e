"""A run killed in the middle of an epoch and resumed in a new process ends with the bits of the run that was not."""

import subprocess
import sys

import pytest

from bedstone.repro import CheckpointStore, first_difference

# What the parts are for, put together as a training loop would: dropout, shuffling, noise drawn in workers.
RUN = """
import os, pathlib, signal, sys
import torch
from bedstone.repro import CheckpointStore, SeedTree, capture_rng, restore_rng, seed_everything

torch.set_num_threads(1)
folder, workers, kill_at, restoring = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "rng"
SEEDS, ROWS, BATCH, EPOCHS, SAVE_EVERY = SeedTree(1234), 48, 8, 2, 2

class Noisy(torch.utils.data.Dataset):
    def __init__(self, epoch):
        self.epoch = epoch
    def __len__(self):
        return ROWS
    def __getitem__(self, row):
        x = torch.full((16,), row / ROWS) + torch.randn(16, generator=SEEDS.generator("noise", self.epoch, row))
        return x, torch.tensor(float(row % 3))

def batches(epoch, first):
    order = torch.randperm(ROWS, generator=SEEDS.generator("order", epoch)).tolist()
    return [order[start : start + BATCH] for start in range(first * BATCH, ROWS, BATCH)]

seed_everything(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Dropout(0.3), torch.nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
store, step, rng = CheckpointStore(folder), 0, None
if found := store.latest():
    step, rng = found.step, found.state["rng"]
    for name, part in parts.items():
        part.load_state_dict(found.state[name])
per_epoch = ROWS // BATCH
for epoch in range(step // per_epoch, EPOCHS):
    first = step - epoch * per_epoch
    loader = torch.utils.data.DataLoader(
        Noisy(epoch), batch_sampler=batches(epoch, first), num_workers=workers, generator=SEEDS.generator("loader", epoch)
    )
    iterator = iter(loader)
    if rng is not None and restoring:
        restore_rng(rng)
    rng = None
    for x, y in iterator:
        optimizer.zero_grad()
        (model(x).squeeze(-1) - y).square().mean().backward()
        optimizer.step()
        schedule.step()
        step += 1
        if step % SAVE_EVERY == 0:
            store.save(step, {name: part.state_dict() for name, part in parts.items()} | {"rng": capture_rng()})
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def run(folder, *, workers, kill_at=-1, restore="rng"):
    command = [sys.executable, "-c", RUN, str(folder), str(workers), str(kill_at), restore]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder, workers=0)
    assert done.returncode == 0, done.stderr
    return folder / "step-000012"


@pytest.mark.parametrize(("workers", "kill_at"), [(0, 3), (2, 9)])
def test_killed_and_resumed_is_the_same_bit_for_bit_for_any_number_of_workers(whole, tmp_path, workers, kill_at):
    assert run(tmp_path, workers=workers, kill_at=kill_at).returncode == -9
    assert CheckpointStore(tmp_path).latest().step == kill_at - 1
    done = run(tmp_path, workers=workers)
    assert done.returncode == 0, done.stderr
    assert first_difference(whole, tmp_path / "step-000012") is None


def test_without_the_random_state_the_resumed_run_is_another_one(whole, tmp_path):
    run(tmp_path, workers=0, kill_at=3)
    done = run(tmp_path, workers=0, restore="nothing")
    assert done.returncode == 0, done.stderr
    assert first_difference(whole, tmp_path / "step-000012").name.startswith("model.safetensors/")
