"""The event stream: every sink sees every event, files hold JSON lines, the standard logger sees numbers."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading

import numpy as np
import pytest

from bedstone.core.errors import CoreError, FrameworkError, KernelError, StorageError
from bedstone.core.events import (
    JsonlSink,
    MemoryUsage,
    Metric,
    Progress,
    TrainingStep,
    add_sink,
    emit,
    listening,
    sink,
)

STEP = TrainingStep(step=3, total=12, loss=2.5, lr=1e-4, tokens_per_s=180.0)


def test_a_sink_sees_events_only_while_it_is_added():
    """Removing a sink ends it."""
    seen = []
    with sink(seen.append):
        emit(STEP)
    emit(STEP)
    assert seen == [STEP]


def test_removing_a_sink_twice_is_harmless():
    """The returned function may be called from a finally and by hand."""
    remove = add_sink(lambda _event: None)
    remove()
    remove()


def test_a_failing_sink_is_heard():
    """Nothing is swallowed: a sink that may fail must handle it itself."""

    def broken(_event):
        raise ValueError("full")

    with sink(broken), pytest.raises(ValueError, match="full"):
        emit(STEP)


def test_the_standard_logger_gets_sentence_and_fields(caplog):
    """Numbers stay numbers in the record."""
    with caplog.at_level(logging.INFO, logger="bedstone"):
        emit(STEP)
    (record,) = caplog.records
    assert record.getMessage() == "step 3/12 (25%): loss 2.5000, lr 1.00e-04, 180 tokens/s"
    assert record.event["loss"] == 2.5
    assert record.event["event"] == "training_step"
    assert record.filename == "test_events.py"


def test_unset_fields_are_left_out_of_the_record():
    """A record holds what is known."""
    assert "grad_norm" not in STEP.record()


def test_jsonl_holds_one_object_an_event_and_no_transient_ones(tmp_path):
    """Progress ticks matter only while they happen."""
    path = tmp_path / "events.jsonl"
    file = JsonlSink(path)
    with sink(file):
        emit(STEP)
        emit(Progress(phase="tokenize", done=1, total=2))
        emit(Metric(values={"accuracy": 0.5}))
    file.close()
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["event"], first["loss"]) == ("training_step", 2.5)
    assert (second["event"], second["accuracy"]) == ("metric", 0.5)


def test_jsonl_lines_from_many_threads_never_mix(tmp_path):
    """Each line is whole."""
    path = tmp_path / "events.jsonl"
    file = JsonlSink(path)

    def work():
        for index in range(200):
            file(Metric(values={"index": index, "padding": 0.123456789}))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file.close()
    assert sorted(json.loads(line)["index"] for line in path.read_text().splitlines()) == sorted([*range(200)] * 8)


def test_a_full_disk_is_a_storage_error():
    """The device /dev/full fails every write with ENOSPC."""
    file = JsonlSink("/dev/full")
    with pytest.raises(StorageError, match="Could not write an event at /dev/full: No space left on device"):
        file(STEP)
    with pytest.raises(StorageError, match="Could not close the event file"):
        file.close()


def test_nobody_listens_to_debug_by_default():
    """An unconfigured process builds no debug events."""
    assert not listening(logging.DEBUG)
    with sink(lambda _event: None):
        assert listening(logging.DEBUG)


def test_a_full_disk_under_the_stream_is_one_storage_error():
    """The sink's own failure is an error of ours, whose event must not go to the same sink again, for ever."""
    file = JsonlSink("/dev/full")
    with sink(file), pytest.raises(StorageError) as caught:
        emit(STEP)
    assert str(caught.value) == "Could not write an event at /dev/full: No space left on device."
    with pytest.raises(StorageError):
        file.close()


def test_a_failing_sink_never_replaces_the_error_that_it_is_told_of():
    """The error at hand is what the caller waits for; a note says that its event was lost."""

    def broken(_event):
        raise FrameworkError("the sink broke")

    with sink(broken), pytest.raises(KernelError, match="the kernel broke") as caught:
        raise KernelError("the kernel broke", op="add")
    assert caught.value.__notes__ == ["The event of this error reached not every sink: FrameworkError: the sink broke"]


def test_the_event_of_an_error_names_the_raise_though_constructors_lie_between():
    """A family's error has a constructor of its own, in a file of its own."""
    seen = []

    class LateError(CoreError, ValueError):
        """Sets its facts after the base's constructor has run."""

        code = "late"

        def __init__(self, number):
            super().__init__("Too late.")
            self.number = number

        def __str__(self):
            return f"{self.message} {self.number}"

    with sink(seen.append), pytest.raises(LateError):
        raise LateError(3)
    (event,) = seen
    assert event.text == "Too late."
    assert event.stack.rstrip().endswith("raise LateError(3)")
    assert event.location.startswith(f"{__file__}:")


def test_an_error_is_an_event_whichever_module_is_imported_first():
    """`memory` stands above `errors` and needs no event itself."""
    program = (
        "import logging; logging.basicConfig(level=logging.DEBUG)\n"
        "from bedstone.core.memory import MemoryTracker\n"
        "try: MemoryTracker(1).allocate(2)\n"
        "except MemoryError: pass\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stderr.startswith("DEBUG:bedstone:OutOfMemoryError at ")


def test_jsonl_is_strict_json_whatever_the_numbers_and_texts_are(tmp_path):
    """A diverged loss is NaN, a step may be a NumPy integer, and a file name may have no UTF-8."""
    path = tmp_path / "events.jsonl"
    file = JsonlSink(path)
    file(TrainingStep(step=np.int64(7), total=9, loss=float("nan"), lr=float("inf")))
    file(MemoryUsage(allocated_bytes=1, peak_bytes=1, context="a\udcff"))
    file.close()

    def refuse(constant):
        raise AssertionError(constant)

    first, second = (json.loads(line, parse_constant=refuse) for line in path.read_text("utf-8").splitlines())
    assert (first["step"], first["loss"], first["lr"]) == (7, "NaN", "Infinity")
    assert second["context"] == "a\udcff"
