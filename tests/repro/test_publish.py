"""At whatever operation a process is killed, a published name leads to a whole folder, the earlier or the new one."""

import json
import subprocess
import sys

import pytest

from bedstone.repro.files import exchange
from bedstone.repro.publish import (
    _put_in_place_in_two_steps,
    discard,
    put_in_place,
    remove_leftovers,
    temporary_folder,
)

# Every operation on files that Python does is announced to audit hooks before it happens. The child dies by SIGKILL at
# the n-th, for n = 1, 2, ... until it lives; so every instant between two operations is tried, not a few at random.
KILLED_EVERYWHERE = """
import itertools, json, os, pathlib, shutil, signal, sys
from bedstone.repro import publish

root = pathlib.Path(sys.argv[1])
WATCHED = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree", "os.scandir", "os.listdir",
           "ctypes.dlopen", "ctypes.dlsym", "fcntl.flock"}

def fill(folder, content):
    for name in "abc":
        (folder / name).write_text(content)

def read(folder):
    return sorted(path.read_text() for path in folder.iterdir())

def work(parent, way):
    with publish.temporary_folder(parent, "step") as draft:
        fill(draft, "new")
        if way == "discard":
            publish.discard(parent / "step")
        elif way == "two steps":
            publish._put_in_place_in_two_steps(draft, parent / "step")
        else:
            publish.put_in_place(draft, parent / "step")

def die_at(count):
    left = itertools.count(count, -1)
    def hook(event, arguments):
        if event in WATCHED and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def killed_everywhere(way):
    for count in itertools.count():
        parent = root / f"{way} {count}"
        parent.mkdir()
        if way != "first":
            (parent / "step").mkdir()
            fill(parent / "step", "old")
        child = os.fork()
        if child == 0:
            die_at(count)
            work(parent, way)
            os._exit(0)
        lived = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        before = read(parent / "step") if (parent / "step").exists() else None
        publish.remove_leftovers(parent)
        after = read(parent / "step") if (parent / "step").exists() else None
        yield before, after, sorted(path.name for path in parent.iterdir())
        if lived:
            return

print(json.dumps({way: list(killed_everywhere(way)) for way in ("first", "exchange", "two steps", "discard")}))
"""
OLD, NEW = ["old"] * 3, ["new"] * 3


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What was found at the name before and after cleaning, by way of working, killed at each operation in turn."""
    command = [sys.executable, "-c", KILLED_EVERYWHERE, str(tmp_path_factory.mktemp("killed"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def outcomes(seen):
    assert len(seen) > 8, "the hook saw too few operations to prove anything"
    for before, after, names in seen:
        assert before in (None, after), "cleaning changed a published folder"
        assert names == (["step"] if after else []), "something was left over"
    return [(before, after) for before, after, _ in seen]


def test_a_first_folder_is_absent_or_whole(killed):
    seen = outcomes(killed["first"])
    assert {after and tuple(after) for _, after in seen} == {None, tuple(NEW)}
    assert seen[-1] == (NEW, NEW)


def test_a_replaced_folder_is_never_absent(killed):
    seen = outcomes(killed["exchange"])
    assert all(before in (OLD, NEW) for before, _ in seen)
    assert seen[0] == (OLD, OLD)
    assert seen[-1] == (NEW, NEW)


def test_without_an_exchange_the_earlier_folder_is_put_back(killed):
    seen = outcomes(killed["two steps"])
    assert all(after in (OLD, NEW) for _, after in seen)
    assert (None, OLD) in seen  # killed between the two renames
    assert seen[-1] == (NEW, NEW)


def test_a_discarded_folder_is_whole_or_absent(killed):
    seen = outcomes(killed["discard"])
    assert {after and tuple(after) for _, after in seen} == {None, tuple(OLD)}
    assert seen[-1] == (None, None)


def fill(folder, content):
    (folder / "a").write_text(content)


def test_a_living_writers_folder_is_not_a_leftover(tmp_path):
    with temporary_folder(tmp_path, "step") as draft:
        fill(draft, "new")
        remove_leftovers(tmp_path)
        assert (draft / "a").read_text() == "new"
    assert not draft.exists()


def test_a_failing_writer_leaves_nothing(tmp_path):
    def interrupted():
        with temporary_folder(tmp_path, "step") as draft:
            fill(draft, "new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_replaced(tmp_path):
    (tmp_path / "step").write_text("a file")
    with temporary_folder(tmp_path, "step") as draft:
        fill(draft, "new")
        put_in_place(draft, tmp_path / "step")
    assert [path.name for path in tmp_path.iterdir()] == ["step"]
    assert (tmp_path / "step" / "a").read_text() == "new"


def test_two_steps_put_the_earlier_folder_back_when_the_second_fails(tmp_path):
    (tmp_path / "step").mkdir()
    fill(tmp_path / "step", "old")
    with pytest.raises(FileNotFoundError):
        _put_in_place_in_two_steps(tmp_path / "absent", tmp_path / "step")
    assert [path.name for path in tmp_path.iterdir()] == ["step"]
    assert (tmp_path / "step" / "a").read_text() == "old"


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".hidden").mkdir()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "notes.txt"]


def test_a_discarded_folder_is_gone(tmp_path):
    (tmp_path / "step").mkdir()
    fill(tmp_path / "step", "old")
    discard(tmp_path / "step")
    assert list(tmp_path.iterdir()) == []


def test_this_machine_has_the_atomic_exchange(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert exchange(tmp_path / "a", tmp_path / "b")  # else the tests above prove only the second way
