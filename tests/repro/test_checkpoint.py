"""Whatever happens to the process or the disk, the store holds whole checkpoints, and says which ones it skipped."""

import errno
import json
import logging
import os
import subprocess
import sys

import pytest
import torch

from bedstone.core.errors import InvalidConfigError, StorageError
from bedstone.core.events import sink
from bedstone.repro.checkpoint import CheckpointDamaged, CheckpointStore
from bedstone.repro.checkpoint_folder import CheckpointError, CheckpointVersionError, read_folder, verify_folder
from bedstone.repro.fingerprint import fingerprint


def state(value, size=8):
    return {"model": {"weight": torch.full((size,), float(value))}, "position": {"step": value}}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def damage(path):
    """Change one byte of the tensors and leave every length as it was."""
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def make_newer(path):
    content = json.loads((path / "index.json").read_text()) | {"version": 2}
    content.pop("index_sha256")
    (path / "index.json").write_text(json.dumps(content | {"index_sha256": fingerprint(content)}))


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints")


def test_the_latest_is_what_was_saved_last(store):
    assert store.latest() is None
    for step in (10, 20):
        assert store.save(step, state(step)) == store.folder / f"step-0000{step}"
    found = store.latest()
    assert (found.path, found.step) == (store.folder / "step-000020", 20)
    assert found.state["position"] == {"step": 20}
    assert torch.equal(found.state["model"]["weight"], torch.full((8,), 20.0))


def test_any_checkpoint_can_be_loaded_by_path(store):
    for step in (10, 20):
        store.save(step, state(step))
    assert store.load(store.folder / "step-000010").state["position"] == {"step": 10}
    assert store.load(str(store.folder / "step-000020")).step == 20


def test_steps_are_in_the_order_of_their_numbers(store):
    for step in (2_000_000, 999_999, 7):
        store.save(step, state(step))
    (store.folder / "step-x").mkdir()
    (store.folder / "step-000008").write_text("a file")
    assert [path.name for path in store.paths()] == ["step-000007", "step-999999", "step-2000000"]


def test_optimizer_and_scheduler_go_on_exactly(store):
    def build():
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        return {"model": model, "optimizer": optimizer, "schedule": schedule}

    def train(parts, steps):
        for step in range(steps):
            parts["optimizer"].zero_grad()
            parts["model"](torch.full((3, 4), float(step + 1))).square().sum().backward()
            parts["optimizer"].step()
            parts["schedule"].step()

    whole = build()
    train(whole, 3)
    store.save(3, {name: part.state_dict() for name, part in whole.items()})
    resumed = build()
    for name, part in resumed.items():
        part.load_state_dict(store.latest().state[name])
    for parts in (whole, resumed):
        train(parts, 4)
    assert torch.equal(whole["model"].weight, resumed["model"].weight)
    assert whole["schedule"].get_last_lr() == resumed["schedule"].get_last_lr()


def test_a_damaged_one_is_said_and_skipped(store, caplog):
    for step in (10, 20, 30):
        store.save(step, state(step))
    damage(store.folder / "step-000030")
    (store.folder / "step-000020" / "state.json").unlink()
    events = []
    with sink(events.append), caplog.at_level(logging.WARNING, "bedstone"):
        assert store.latest().step == 10
    said = [event for event in events if isinstance(event, CheckpointDamaged)]
    changed = "the content of `model.safetensors` has changed (its SHA-256 differs)"
    assert [event.message() for event in said] == [
        f"The checkpoint {store.folder}/step-000030 is damaged and not used: {changed}.",
        f"The checkpoint {store.folder}/step-000020 is damaged and not used: `state.json` is missing.",
    ]
    assert caplog.messages == [event.message() for event in said]
    assert said[0].record()["event"] == "checkpoint_damaged"


def test_a_damaged_one_is_refused_by_name_when_asked_for(store):
    path = store.save(10, state(10))
    damage(path)
    with pytest.raises(CheckpointError) as caught:
        store.load(path)
    assert str(caught.value) == (
        f"The checkpoint {path} cannot be used: the content of `model.safetensors` has changed (its SHA-256 differs)."
    )
    assert store.load(path, verify=False).step == 10


def test_when_all_are_damaged_there_is_none(store):
    damage(store.save(10, state(10)))
    assert store.latest() is None


def test_a_newer_format_is_refused_and_neither_skipped_nor_replaced_nor_pruned(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    store.save(10, state(10))
    make_newer(store.save(20, state(20)))
    expected = (
        f"The checkpoint {tmp_path}/step-000020 cannot be used: it has version 2 of the format 'bedstone-checkpoint', "
        "and this program reads version 1. Use the bedstone that wrote it, or a newer one."
    )
    for use in (store.latest, lambda: store.save(20, state(20))):
        with pytest.raises(CheckpointVersionError) as caught:
            use()
        assert str(caught.value) == expected
    store.save(15, state(15))
    assert names(tmp_path) == ["step-000015", "step-000020"]


def test_the_newest_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for step in (10, 20, 30, 40):
        store.save(step, state(step))
    assert names(tmp_path) == ["step-000030", "step-000040"]


def test_the_one_just_saved_is_kept_even_if_it_is_not_the_newest(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    store.save(50, state(50))
    store.save(40, state(40))
    assert names(tmp_path) == ["step-000040", "step-000050"]


def test_damaged_ones_do_not_push_out_good_ones(tmp_path):
    everything = CheckpointStore(tmp_path)
    for step in (10, 20, 30, 40):
        everything.save(step, state(step))
    for step in (10, 30, 40):
        (tmp_path / f"step-0000{step}" / "state.json").unlink()
    CheckpointStore(tmp_path, keep=2).save(35, state(35))
    # 20 and 35 are the newest two good ones; 10 is rubbish; 30 and 40 wait for their step to be saved again.
    assert names(tmp_path) == ["step-000020", "step-000030", "step-000035", "step-000040"]


def test_the_same_content_again_is_kept_as_it_is(store):
    path = store.save(10, state(10))
    before = path.stat().st_ino, (path / "index.json").stat().st_mtime_ns
    assert store.save(10, state(10)) == path
    assert (path.stat().st_ino, (path / "index.json").stat().st_mtime_ns) == before
    assert names(store.folder) == ["step-000010"]


def test_other_content_takes_the_place_of_the_earlier(store):
    store.save(10, state(10))
    store.save(10, state(11))
    assert store.latest().state["position"] == {"step": 11}
    assert names(store.folder) == ["step-000010"]


@pytest.mark.parametrize("how", ["changed", "missing", "empty"])
def test_a_damaged_one_is_replaced_when_its_step_is_saved_again(store, how):
    path = store.save(10, state(10))
    if how == "changed":
        damage(path)
    for file in path.iterdir() if how == "empty" else [path / "state.json"] if how == "missing" else []:
        file.unlink()
    store.save(10, state(10))
    verify_folder(path)
    assert names(store.folder) == ["step-000010"]


def test_a_new_store_removes_what_a_dead_writer_left(store):
    store.save(10, state(10))
    for name in (".tmp-step-000020-0123abcd", ".old-step-000010-0123abcd"):
        (store.folder / name).mkdir()
        (store.folder / name / "model.safetensors").write_bytes(b"half")
    (store.folder / "notes.txt").write_text("mine")
    CheckpointStore(store.folder)
    assert names(store.folder) == ["notes.txt", "step-000010"]


def test_making_a_store_makes_no_folder(tmp_path):
    assert CheckpointStore(tmp_path / "a").paths() == ()
    assert names(tmp_path) == []


@pytest.mark.parametrize("keep", [0, -1, 1.5, True, "3"])
def test_keep_must_be_a_number_of_checkpoints(tmp_path, keep):
    with pytest.raises(InvalidConfigError) as caught:
        CheckpointStore(tmp_path, keep)
    assert str(caught.value) == f"`keep` (={keep!r}) must be an integer of at least 1, or None to keep all."


@pytest.mark.parametrize("step", [-1, 1.0, True, "3"])
def test_a_step_must_be_a_number(store, step):
    with pytest.raises(InvalidConfigError) as caught:
        store.save(step, state(1))
    assert str(caught.value) == f"`step` (={step!r}) must be an integer of at least 0."


def test_a_state_that_cannot_be_saved_touches_nothing(store):
    with pytest.raises(InvalidConfigError):
        store.save(10, {"model": {"weight": torch.ones(1), "code": compile}})
    assert not store.folder.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        CheckpointStore(tmp_path / "file").save(10, state(10))
    assert str(caught.value) == (
        f"Could not save the checkpoint at {tmp_path}/file/step-000010: File exists. "
        "Earlier checkpoints are as they were."
    )


# --- killed and full -----------------------------------------------------------------------------

# Forked from one interpreter, since starting torch takes longer than the saves. Steps repeat with new content (exchange),
# go on (rename) and are pruned. The child acknowledges each save that has returned.
SAVE_UNTIL_KILLED = """
import itertools, json, os, pathlib, random, signal, sys, time
import torch
from bedstone.repro import CheckpointStore, verify_folder

torch.set_num_threads(1)
folder = pathlib.Path(sys.argv[1])

def save_forever(first, acknowledge):
    store = CheckpointStore(folder, keep=2)
    for count in itertools.count(first):
        weight = torch.full((20_000,), float(count))
        store.save(count // 3, {"model": {"weight": weight}, "optimizer": {"state": {0: weight}}, "count": count})
        os.write(acknowledge, f"{count}\\n".encode())

saved, moments = 0, random.Random(int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    receive, acknowledge = os.pipe()
    child = os.fork()
    if child == 0:
        save_forever(saved, acknowledge)
    os.close(acknowledge)
    with os.fdopen(receive) as lines:
        words = [lines.readline()]
        time.sleep(moments.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        words += lines.readlines()
    saved = int([word for word in words if word.endswith("\\n")][-1])
    left = sorted(path.name for path in folder.iterdir())
    for path in folder.glob("step-*"):
        verify_folder(path)
    found = CheckpointStore(folder).latest()
    clean = all(path.name.startswith("step-") for path in folder.iterdir())
    weights = found.state["model"]["weight"], found.state["optimizer"]["state"][0]
    whole = all(bool((weight == found.state["count"]).all()) for weight in weights)
    print(json.dumps([saved, found.state["count"], clean, whole, left]), flush=True)
"""


def test_kill_9_leaves_whole_checkpoints_and_loses_none_that_was_saved(run_python, tmp_path):
    rows = [json.loads(line) for line in run_python(SAVE_UNTIL_KILLED, tmp_path, 1, 30).splitlines()]
    assert len(rows) == 30
    for acknowledged, found, clean, whole, _ in rows:
        assert acknowledged <= found <= acknowledged + 1
        assert clean
        assert whole
    assert any(name.startswith(".tmp-") for *_, left in rows for name in left), "no kill hit a save: nothing was tested"


def test_everything_is_forced_to_the_disk_before_it_is_published_and_the_name_after(store):
    store.save(10, state(10))
    calls = []

    def watch(frame, event, function):
        if event == "c_call" and function.__name__ in {"fsync", "rename"}:
            calls.append(function.__name__)

    sys.setprofile(watch)
    try:
        store.save(20, state(20))
    finally:
        sys.setprofile(None)
    # model.safetensors, state.json, index.json, their folder; the new name; the folder that holds the name.
    assert calls == ["fsync", "fsync", "fsync", "fsync", "rename", "fsync"]


FULL = """
import json, os, pathlib, resource, sys
import torch
from bedstone.repro import CheckpointStore

folder, limit, elements = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = CheckpointStore(folder, keep=1)
store.save(10, {"model": {"weight": torch.ones(8)}})
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    store.save(20, {"model": {"weight": torch.ones(elements)}, "small": {"weight": torch.ones(2)}})
    outcome = [None, None, None]
except OSError as error:
    outcome = [type(error).__name__, str(error), error.errno]
print(json.dumps([*outcome, sorted(os.listdir(folder)), store.latest().step]))
"""


def test_a_write_that_fails_stops_the_save_and_nothing_else(run_python, tmp_path):
    kind, text, number, left, latest = json.loads(run_python(FULL, tmp_path, 100_000, 30_000))
    assert (kind, number, latest) == ("StorageError", errno.EFBIG, 10)
    assert text == (
        f"Could not save the checkpoint at {tmp_path}/step-000020: File too large. Earlier checkpoints are as they were."
    )
    assert left == ["step-000010"]


def on_small_disk(folder, options, *arguments):
    """Run the script with a real file system of its own, which only that process sees; `None` where that is forbidden."""
    mount = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && echo mounted && exec "$@"'
    inside = ["sh", "-c", mount, "sh", options, str(folder), sys.executable, "-c", FULL, str(folder), "0", *arguments]
    for private in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        done = subprocess.run([*private, *inside], capture_output=True, text=True, check=False, env=os.environ)
        if done.stdout.startswith("mounted\n"):
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout.removeprefix("mounted\n"))
    return pytest.skip(f"this machine lets nobody mount a small file system: {done.stderr}")


def test_a_disk_without_room_is_seen_before_anything_is_written(tmp_path):
    kind, text, number, left, latest = on_small_disk(tmp_path, "size=4m", "1000000")
    assert (kind, number, latest, left) == ("StorageError", errno.ENOSPC, 10, ["step-000010"])
    start, _, end = text.partition(" bytes are needed and ")
    assert start.startswith(f"Could not save step 20 at {tmp_path}: 5,04")
    assert end.endswith(" are free. Free some space, or keep fewer checkpoints.")


def test_a_disk_that_is_full_in_the_middle_stops_the_save_and_nothing_else(tmp_path):
    # Room enough for every byte, but not for every file: root, two folders and all files of the first, two of the second.
    kind, text, number, left, latest = on_small_disk(tmp_path, "size=64m,nr_inodes=8", "1000000")
    assert (kind, number, latest, left) == ("StorageError", errno.ENOSPC, 10, ["step-000010"])
    assert text == (
        f"Could not save the checkpoint at {tmp_path}/step-000020: No space left on device. "
        "Earlier checkpoints are as they were."
    )


def test_reading_needs_no_right_to_write(store):
    store.save(10, state(10))
    (store.folder / ".tmp-step-000020-0123abcd").mkdir()
    store.folder.chmod(0o555)
    try:
        readable = read_folder(CheckpointStore(store.folder).paths()[0])
        assert readable[0].step == 10
    finally:
        store.folder.chmod(0o755)
