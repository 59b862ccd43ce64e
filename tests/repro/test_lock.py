"""One holder a folder, named to whoever comes second, and free again the moment its process is gone."""

import os
import re
import signal
import socket
import time

import pytest

from bedstone.core.errors import StorageError
from bedstone.repro.lock import RunLock

HOLD = """
import os, sys, time
from bedstone.repro.lock import RunLock
with RunLock(sys.argv[1]):
    print(os.getpid(), flush=True)
    time.sleep(60)
"""
HOLD_AND_FORK = """
import os, sys, time
from bedstone.repro.lock import RunLock
with RunLock(sys.argv[1]):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def test_the_file_names_the_holder(tmp_path):
    with RunLock(tmp_path / "runs" / "a"):
        assert (tmp_path / "runs" / "a" / ".lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"


def test_another_process_is_refused_with_the_holders_number(tmp_path, start_python):
    process, pid = start_python(HOLD, tmp_path)
    with pytest.raises(StorageError) as caught, RunLock(tmp_path):
        pass
    assert str(caught.value) == (
        f"The run folder {tmp_path} is in use by process {pid} on {socket.gethostname()}. "
        f"Wait for that run to end, stop it with `kill {pid}`, or choose another folder."
    )
    assert caught.value.context["pid"] == process.pid == int(pid)
    assert caught.value.path == str(tmp_path)


def test_the_same_process_is_refused_too(tmp_path):
    lock = RunLock(tmp_path)
    with lock:
        for second in (RunLock(tmp_path), lock):
            with pytest.raises(StorageError) as caught, second:
                pass
            assert str(caught.value) == (
                f"The run folder {tmp_path} is in use by this process ({os.getpid()}). "
                "Finish that run first, or choose another folder."
            )
    with lock:  # and both can be used again
        pass


def test_a_holder_that_has_not_signed_yet_is_another_process(tmp_path):
    with RunLock(tmp_path):
        (tmp_path / ".lock").write_text("")
        with pytest.raises(StorageError, match=re.escape(f"The run folder {tmp_path} is in use by another process.")):
            RunLock(tmp_path).__enter__()


def test_it_is_released_when_the_block_fails(tmp_path):
    with pytest.raises(RuntimeError, match="boom"), RunLock(tmp_path):
        raise RuntimeError("boom")
    with RunLock(tmp_path):
        pass


def test_kill_9_releases_it(tmp_path, start_python):
    process, _ = start_python(HOLD, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with RunLock(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} ")


def test_a_forked_child_does_not_keep_it_after_its_parent_was_killed(tmp_path, start_python):
    process, child = start_python(HOLD_AND_FORK, tmp_path)
    time.sleep(0.2)  # until the child has run its fork hooks
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        os.kill(int(child), 0)  # it is alive
        with RunLock(tmp_path):
            pass
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_forked_child_that_leaves_the_block_does_not_release_its_parents_lock(tmp_path, run_python):
    script = """
import os, sys
from bedstone.core.errors import StorageError
from bedstone.repro.lock import RunLock
with RunLock(sys.argv[1]):
    if (child := os.fork()) == 0:
        sys.exit(0)
    os.waitpid(child, 0)
    if (child := os.fork()) == 0:
        try:
            RunLock(sys.argv[1]).__enter__()
        except StorageError:
            os._exit(7)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(script, tmp_path).strip() == "7"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught, RunLock(tmp_path / "file" / "run"):
        pass
    assert str(caught.value) == f"Could not lock the run folder at {tmp_path}/file/run/.lock: File exists."
