"""Two views of one event stream: a bar on a terminal, plain lines elsewhere; neither hides a sentence."""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings

import pytest
from rich.console import Console

from bedstone.cli.progress import BarView, LineView, _bar, show_progress
from bedstone.core.device import CpuFallbackWarning
from bedstone.core.errors import InvalidConfigError
from bedstone.core.events import DeviceSelected, MemoryUsage, Metric, Progress, TrainingStep, emit
from bedstone.train.events import CheckpointWritten, DataPrepared, ResumeDiffers, RunInterrupted, RunStarted


def step(number, *, time, total=100, **more):
    """A training step that took a second."""
    return TrainingStep(step=number, total=total, loss=3.0 - number / 100, lr=1e-4, time=time, **more)


STORY = [
    DeviceSelected(device="cuda:0", requested="auto", source="default", reason="It is there."),
    DataPrepared(split="train", rows=36, tokens=4230, trained_tokens=315, truncated=1, dropped=0),
    RunStarted(
        run="[bold]mine[/bold]",
        base_model="tiny",
        device="cuda:0",
        steps=100,
        epochs=1.0,
        parameters=100,
        trainable_parameters=1,
        resumed_from_step=40,
    ),
    CheckpointWritten(step=50, path="runs/a/checkpoints/step-000050", bytes=5 * 2**20, seconds=0.1),
    ResumeDiffers(differences="threads: 1 -> 2"),
    RunInterrupted(step=50, signal="SIGINT", checkpoint="runs/a/checkpoints/step-000050"),
]
SENTENCES = [
    "Using cuda:0 (auto from default): It is there.",
    "train: 36 rows, 4,230 tokens, 315 trained, 1 truncated",
    "[bold]mine[/bold] resumed after step 40: 100 steps (1 epochs) on cuda:0, training 1 of 100 parameters (1%)",
    "checkpoint runs/a/checkpoints/step-000050 (5 MiB in 0.10 s)",
    "warning: Resuming under other conditions, results may differ in the last bits: threads: 1 -> 2.",
    # The interruption is told by the command's last line.
]


def lines(events, *, every_s=5.0):
    """What the plain view writes."""
    stream = io.StringIO()
    view = LineView(Console(file=stream, width=40), every_s=every_s)
    for event in events:
        view(event)
    return stream.getvalue().splitlines()


# --- plain lines ---------------------------------------------------------------------------------


def test_each_event_is_its_own_sentence_on_one_unbroken_line():
    """Nothing is wrapped, nothing is read as markup, warnings are marked by a word."""
    assert lines(STORY) == SENTENCES


def test_first_and_last_step_show_and_others_every_few_seconds():
    """A log of a long run stays short."""
    shown = lines([step(number, time=float(number)) for number in range(1, 13)] + [step(100, time=13.0)])
    assert [line.split(":")[0] for line in shown] == ["step 1/100", "step 6/100", "step 11/100", "step 100/100"]


def test_a_step_line_has_loss_speed_memory_and_what_is_left():
    """What people look for."""
    more = {"tokens_per_s": 181.4, "memory_bytes": 1_430_000_000}
    shown = lines([step(1, time=0.0, **more), step(11, time=10.0, **more)])
    assert shown[-1] == "step 11/100: loss 2.8900, 181 tokens/s, 1.33 GiB, 1m29s left"


def test_a_resumed_run_is_timed_from_where_it_went_on():
    """Steps of an earlier process say nothing about this one's speed."""
    shown = lines([step(41, time=0.0), step(51, time=10.0)])
    assert shown[-1].endswith("49s left")


def test_short_work_beside_the_steps_is_silent():
    """An evaluation of two seconds needs no line."""
    assert lines([Progress(phase="evaluating", done=done, total=4, time=float(done) / 2) for done in range(5)]) == []


def test_long_work_beside_the_steps_says_how_far_it_is():
    """Nobody waits in the dark for longer than a few seconds."""
    events = [Progress(phase="converting", done=done, total=30, unit="tensors", time=float(done)) for done in range(31)]
    assert lines(events) == [
        *(f"converting: {done}/30 tensors, {30 - done}s left" for done in (5, 10, 15, 20, 25)),
    ]


def test_work_of_unknown_length_counts_up():
    """Total 0 means unknown."""
    events = [Progress(phase="reading", done=done, total=0, unit="rows", time=float(done)) for done in range(7)]
    assert lines(events) == ["reading: 5 rows"]


def test_the_second_time_the_same_work_is_timed_anew():
    """Evaluations come back."""
    first = [Progress(phase="evaluating", done=done, total=4, time=float(done)) for done in range(5)]
    second = [Progress(phase="evaluating", done=done, total=4, time=50.0 + done) for done in range(5)]
    assert lines(first + second) == []


def test_events_below_info_stay_out():
    """They are in the log for those who ask."""
    assert lines([MemoryUsage(allocated_bytes=1, peak_bytes=2)]) == []
    assert lines([Metric(values={"accuracy": 0.5})]) == ["accuracy 0.5"]


def test_the_fallback_reason_is_told_once():
    """The warning before it has just said why."""
    event = DeviceSelected(device="cpu", requested="auto", source="default", reason="No GPU: a long story.")
    assert lines([event]) == ["Using cpu (auto from default)."]
    chosen = DeviceSelected(device="cpu", requested="cpu", source="BEDSTONE_FORCE_CPU", reason="The CPU was chosen.")
    assert lines([chosen]) == ["Using cpu (cpu from BEDSTONE_FORCE_CPU): The CPU was chosen."]


def test_control_characters_of_an_answer_are_spelled_out():
    """A model may say anything."""
    assert lines([Progress(phase="\x1b[2J", done=done, total=9, time=done * 9.0) for done in range(2)]) == [
        "\\x1b[2J: 1/9, 1m12s left"
    ]


# --- the bar -------------------------------------------------------------------------------------


@pytest.fixture
def terminal():
    """A recorded terminal of 120 columns, and a function that returns its text without control sequences."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120, legacy_windows=False)

    def text():
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())

    return console, text


def test_the_bar_shows_step_loss_speed_memory_and_what_is_left(terminal):
    """And a bar for other work, which leaves when it is done."""
    console, text = terminal
    with _bar(console) as progress:
        view = BarView(progress)
        for number in range(1, 12):
            view(step(number, time=float(number), tokens_per_s=180.0, memory_bytes=2**30))
        view(Progress(phase="evaluating", done=1, total=4, time=20.0))
        view(Progress(phase="evaluating", done=3, total=4, time=22.0))
        assert [task.description for task in progress.tasks] == ["training", "evaluating"]
        progress.refresh()
        view(Progress(phase="evaluating", done=4, total=4, time=23.0))
        assert [task.description for task in progress.tasks] == ["training"]
    assert "11/100 loss 2.8900, 180 tokens/s, 1 GiB, 1m29s left" in text()
    assert re.search(r"evaluating .* 3/4 +1s left", text())


def test_sentences_stand_above_the_bar(terminal):
    """The same ones as in plain lines."""
    console, text = terminal
    with _bar(console) as progress:
        view = BarView(progress)
        for event in [step(1, time=1.0), *STORY]:
            view(event)
    for sentence in SENTENCES:
        assert sentence in text().replace("\n", "")


def test_many_threads_may_speak_at_once(terminal):
    """Data workers report too."""
    console, text = terminal
    with _bar(console) as progress:
        view = BarView(progress)

        def work(index):
            for number in range(50):
                view(Metric(values={f"thread{index}": number}))

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(re.findall(r"thread\d \d+", text()))) == 200


# --- which view ----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "variables", "moving"),
    [
        (io.StringIO, {}, False),
        (Terminal, {"TERM": "xterm"}, True),
        (Terminal, {"TERM": "dumb"}, False),
        (io.StringIO, {"FORCE_COLOR": "1", "TERM": "xterm"}, False),
    ],
    ids=["pipe", "terminal", "dumb terminal", "coloured pipe"],
)
def test_only_a_real_terminal_gets_the_moving_bar(monkeypatch, stream, variables, moving):
    """FORCE_COLOR colours a file, but cursor movements would ruin it."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    console = Console(file=stream(), width=100)
    with show_progress(console):
        emit(step(1, time=1.0))
    cursor_hidden = "\x1b[?25l" in console.file.getvalue()
    assert cursor_hidden is moving
    assert ("step 1/100" in console.file.getvalue()) is not moving


def test_the_view_ends_with_the_block_also_after_an_error():
    """No event is shown twice by the next command."""
    console = Console(file=io.StringIO())
    with pytest.raises(ValueError, match="broken"), show_progress(console):
        raise ValueError("broken")
    emit(step(1, time=1.0))
    assert console.file.getvalue() == ""


@pytest.mark.parametrize(("level", "lines"), [("info", 1), ("error", 0)])
def test_the_log_takes_the_place_of_the_plain_lines_when_it_is_asked_for(monkeypatch, capsys, level, lines):
    """Nothing is said twice."""
    logger = logging.getLogger("bedstone")
    before = list(logger.handlers)
    logger.handlers.clear()
    monkeypatch.setenv("BEDSTONE_LOG_LEVEL", level)
    console = Console(file=io.StringIO())
    try:
        with show_progress(console):
            emit(step(1, time=1.0))
    finally:
        logger.handlers[:] = before
        logger.setLevel(logging.NOTSET)
    assert console.file.getvalue() == ""
    assert capsys.readouterr().err.count("step 1/100") == lines


def test_a_bad_log_level_stops_the_command(monkeypatch):
    """It names variable and value."""
    monkeypatch.setenv("BEDSTONE_LOG_LEVEL", "lots")
    with pytest.raises(InvalidConfigError, match=r"BEDSTONE_LOG_LEVEL \(='lots'\)"), show_progress():
        pass


def test_the_fallback_warning_is_not_shown_beside_its_event():
    """Once is enough; other warnings pass."""
    with show_progress(Console(file=io.StringIO())), warnings.catch_warnings(record=True) as seen:
        warnings.filterwarnings("always", message="slow pump")
        warnings.warn("using the CPU", CpuFallbackWarning, stacklevel=1)
        warnings.warn("slow pump", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["slow pump"]
