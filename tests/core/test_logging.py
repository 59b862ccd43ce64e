"""bedstone's log lines: on its own logger only, readable by people and machines, at peace with the host application."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from bedstone.core.errors import InvalidConfigError
from bedstone.core.events import Metric, TrainingStep, emit, sink
from bedstone.core.logging import (
    JsonFormatter,
    LogConfig,
    TextFormatter,
    init_logging,
    log_memory_usage,
    log_metric,
    log_training_step,
)

LOGGER = logging.getLogger("bedstone")
STEP = TrainingStep(step=3, total=12, loss=2.5, lr=1e-4)
ISO_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def _fresh_logger(monkeypatch):
    """Give the logger back as it was, so that tests do not see each other."""
    for variable in ("BEDSTONE_LOG_LEVEL", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    before = (list(LOGGER.handlers), LOGGER.level, LOGGER.propagate)
    LOGGER.handlers[:] = [handler for handler in before[0] if isinstance(handler, logging.NullHandler)]
    yield
    LOGGER.handlers[:], LOGGER.propagate = before[0], before[2]
    LOGGER.setLevel(before[1])  # forgets the levels it has looked up


def logged(config, *, name="bedstone", level=logging.WARNING, text="the well is dry"):
    """What one record looks like under `config`."""
    lines = io.StringIO()
    init_logging(config, stream=lines)
    logging.getLogger(name).log(level, text)
    return lines.getvalue()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


# --- presets -------------------------------------------------------------------------------------

PRESETS = [
    (LogConfig.default(), rf"^{ISO_TIME} WARN  bedstone\.data the well is dry\n$"),
    (LogConfig.development(), rf"^{ISO_TIME} WARN  bedstone\.data test_logging\.py:\d+ the well is dry\n$"),
    (
        LogConfig.production(),
        rf'^{{"time": "{ISO_TIME}", "level": "warn", "logger": "bedstone\.data", "message": .*}}\n$',
    ),
    (LogConfig.testing(), r"^WARN  the well is dry\n$"),
]


@pytest.mark.parametrize(("config", "line"), PRESETS, ids=["default", "development", "production", "testing"])
def test_each_preset_has_its_look(config, line):
    """The table in the module docstring is true."""
    assert re.match(line, logged(config, name="bedstone.data"))


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        (LogConfig.default(), {"info", "warn"}),
        (LogConfig.development(), {"debug", "info", "warn"}),
        (LogConfig.production(), {"info", "warn"}),
        (LogConfig.testing(), {"warn"}),
        (LogConfig(level="trace"), {"trace", "debug", "info", "warn"}),
        (LogConfig(level="error"), set()),
    ],
)
def test_a_level_hides_what_is_less_severe(config, shown):
    """Trace is below debug, and every preset has its own level."""
    levels = {"trace": 5, "debug": 10, "info": 20, "warn": 30}
    assert {name for name, number in levels.items() if logged(config, level=number)} == shown


def test_a_bad_configuration_lists_every_problem():
    """One error for all fields, with the nearest level."""
    with pytest.raises(InvalidConfigError) as caught:
        LogConfig(level="inof", color="yes", json=1)
    assert str(caught.value) == (
        "3 problems:\n"
        "  `level` (='inof') must be one of error, warn, info, debug, trace. Did you mean 'info'?\n"
        "  `color` (='yes') must be True or False.\n"
        "  `json` (=1) must be True or False."
    )


def test_a_level_that_is_no_text_is_reported_too():
    """Anything can come out of a file."""
    with pytest.raises(InvalidConfigError, match=r"`level` \(=\['info'\]\) must be one of"):
        LogConfig(level=["info"])


# --- the logger ----------------------------------------------------------------------------------


def test_a_second_call_changes_the_look_and_adds_no_handler():
    """Calling again reconfigures; each record shows once."""
    first, second = io.StringIO(), io.StringIO()
    init_logging(LogConfig.testing(), stream=first)
    init_logging(LogConfig.production(), stream=second)
    count = len(LOGGER.handlers)
    init_logging(LogConfig.production(), stream=second)
    LOGGER.info("hello")
    assert len(LOGGER.handlers) == count
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_the_root_logger_and_foreign_handlers_stay_untouched():
    """Only the logger `bedstone` changes, and only by one handler."""
    root = logging.getLogger()
    foreign = logging.StreamHandler(io.StringIO())
    LOGGER.addHandler(foreign)
    before = (list(root.handlers), root.level, logging.getLogger("torch").level)
    init_logging(LogConfig.development())
    init_logging(LogConfig.testing())
    assert (list(root.handlers), root.level, logging.getLogger("torch").level) == before
    assert foreign in LOGGER.handlers


@pytest.mark.parametrize("host_first", [True, False], ids=["host first", "bedstone first"])
def test_a_host_that_configures_logging_keeps_its_lines(host_first):
    """Both orders work in a real program: the host sees the record with its own look, and so do we."""
    host = "logging.basicConfig(stream=sys.stdout, level=logging.INFO, format='HOST %(message)s')"
    ours = "init_logging(LogConfig.testing())"
    steps = [host, ours] if host_first else [ours, host]
    program = "\n".join(
        [
            "import logging, sys",
            "from bedstone.core.logging import LogConfig, init_logging",
            *steps,
            "logging.getLogger('bedstone').warning('dry')",
            "logging.getLogger('host').info('mine')",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "HOST dry\nHOST mine\n"
    assert done.stderr == "WARN  dry\n"


def test_propagate_false_keeps_records_from_the_host(caplog):
    """A program that wants each line once can have it."""
    init_logging(LogConfig(propagate=False), stream=io.StringIO())
    LOGGER.warning("dry")
    assert caplog.records == []


def test_lines_follow_a_replaced_stderr(capsys):
    """The stream is looked up when a line is written."""
    init_logging(LogConfig.testing())
    LOGGER.warning("dry")
    assert capsys.readouterr().err == "WARN  dry\n"


def test_a_program_without_stderr_is_not_stopped(monkeypatch):
    """Windowed programs have none."""
    init_logging(LogConfig.testing())
    monkeypatch.setattr(sys, "stderr", None)
    LOGGER.warning("dry")


def test_a_closed_stream_does_not_stop_the_program(capsys):
    """Like every standard handler, ours reports the failure and goes on."""
    lines = io.StringIO()
    init_logging(LogConfig.testing(), stream=lines)
    lines.close()
    LOGGER.warning("dry")
    assert "--- Logging error ---" in capsys.readouterr().err


def test_many_threads_may_call_it_at_once():
    """One handler comes out of it."""
    threads = [threading.Thread(target=init_logging, args=(LogConfig.testing(),)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([handler for handler in LOGGER.handlers if not isinstance(handler, logging.NullHandler)]) == 1


def test_reconfiguring_while_others_log_loses_and_repeats_nothing():
    """The handler is changed in place."""
    lines = io.StringIO()
    init_logging(LogConfig.testing(), stream=lines)

    def work():
        for index in range(200):
            LOGGER.warning("line %d", index)

    worker = threading.Thread(target=work)
    worker.start()
    while worker.is_alive():
        init_logging(LogConfig.testing(), stream=lines)
    worker.join()
    assert lines.getvalue().splitlines() == [f"WARN  line {index}" for index in range(200)]


# --- the environment -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["error", "ERROR", " error "])
def test_the_variable_wins_over_the_configured_level(monkeypatch, value):
    """In any case and with stray spaces."""
    monkeypatch.setenv("BEDSTONE_LOG_LEVEL", value)
    assert logged(LogConfig.development()) == ""


def test_an_empty_variable_counts_as_unset(monkeypatch):
    """That is how shells unset things."""
    monkeypatch.setenv("BEDSTONE_LOG_LEVEL", "")
    assert logged(LogConfig.testing()) == "WARN  the well is dry\n"


def test_a_bad_level_in_the_environment_names_variable_and_value(monkeypatch):
    """And changes nothing."""
    monkeypatch.setenv("BEDSTONE_LOG_LEVEL", "lots")
    before = (list(LOGGER.handlers), LOGGER.level)
    with pytest.raises(InvalidConfigError) as caught:
        init_logging()
    assert str(caught.value) == (
        "The environment variable BEDSTONE_LOG_LEVEL (='lots') must be one of error, warn, info, debug, trace."
    )
    assert (caught.value.argument, caught.value.value) == ("BEDSTONE_LOG_LEVEL", "lots")
    assert (list(LOGGER.handlers), LOGGER.level) == before


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [
        (Terminal, {}, True),
        (io.StringIO, {}, False),
        (Terminal, {"NO_COLOR": "1"}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, True),
        (Terminal, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_colour_follows_the_terminal_and_the_two_variables(monkeypatch, stream, environment, coloured):
    """A file never gets control characters by itself."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    lines = stream()
    init_logging(LogConfig(timestamps=False, target=False), stream=lines)
    LOGGER.warning("dry")
    assert lines.getvalue() == ("\x1b[33mWARN \x1b[0m dry\n" if coloured else "WARN  dry\n")


@pytest.mark.parametrize("config", [LogConfig.production(), LogConfig.testing()])
def test_no_colour_where_the_preset_has_none(config):
    """Not on a terminal either."""
    lines = Terminal()
    init_logging(config, stream=lines)
    LOGGER.warning("dry")
    assert "\x1b" not in lines.getvalue()


# --- numbers -------------------------------------------------------------------------------------


def test_json_lines_hold_the_fields_of_an_event_as_numbers():
    """A collector can add them up."""
    lines = io.StringIO()
    init_logging(LogConfig.production(), stream=lines)
    emit(STEP)
    line = json.loads(lines.getvalue())
    assert line["event"] == "training_step"
    assert (line["level"], line["logger"]) == ("info", "bedstone")
    assert (line["step"], line["total"], line["loss"], line["lr"]) == (3, 12, 2.5, 1e-4)
    assert line["message"] == "step 3/12 (25%): loss 2.5000, lr 1.00e-04"


@pytest.mark.parametrize(("value", "text"), [("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity")])
def test_json_stays_json_when_a_number_is_not_finite(value, text):
    """JSON has no NaN; the line must parse everywhere."""

    def refuse(constant):
        raise ValueError(constant)

    lines = io.StringIO()
    init_logging(LogConfig.production(), stream=lines)
    emit(Metric(values={"loss": float(value)}))
    assert json.loads(lines.getvalue(), parse_constant=refuse)["loss"] == text


def test_a_field_named_like_one_of_ours_is_kept_beside_it():
    """Neither is lost."""
    record = logging.makeLogRecord({"name": "bedstone", "levelno": 20, "msg": "x"})
    record.event = {"event": "mine", "level": 3, "nested": {"loss": float("nan"), "shape": (2, 3)}}
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["event_level"]) == ("info", 3)
    assert line["nested"] == {"loss": "NaN", "shape": [2, 3]}


def test_an_exception_is_shown_in_both_forms():
    """As text below the line, as a field in JSON."""
    try:
        int("broken")
    except ValueError:
        record = LOGGER.makeRecord("bedstone", 40, "pump.py", 7, "failed", (), sys.exc_info())
    assert "ValueError: invalid literal" in TextFormatter(LogConfig.testing()).format(record).splitlines()[-1]
    line = json.loads(JsonFormatter(location=True).format(record))
    assert line["exception"].endswith("'broken'")
    assert line["location"] == "pump.py:7"


def test_levels_without_a_name_are_shown_by_number():
    """Other people log at levels of their own."""
    assert logged(LogConfig.testing(), level=35) == "LEVEL 35 the well is dry\n"


def test_training_steps_reach_caplog_with_numbers(caplog):
    """What a test of a host application sees."""
    with caplog.at_level(logging.INFO, logger="bedstone"):
        log_training_step(3, 12, loss=torch.tensor(2.5), lr=1e-4)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.event["loss"] == 2.5
    assert type(record.event["loss"]) is float
    assert record.event["step"] == 3


def test_memory_is_logged_at_debug_with_whole_bytes(caplog):
    """Positional, as in the document."""
    with caplog.at_level(logging.DEBUG, logger="bedstone"):
        log_memory_usage(2**40 + 1, 2**41, "after the forward pass")
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert (record.event["allocated_bytes"], record.event["peak_bytes"]) == (2**40 + 1, 2**41)
    assert record.event["context"] == "after the forward pass"


def test_metrics_keep_whole_numbers_and_take_tensors(events):
    """Numbers are numbers, whatever held them."""
    log_metric(correct=3, accuracy=torch.tensor(0.75))
    (event,) = events
    assert event.values == {"correct": 3, "accuracy": 0.75}
    assert [type(value) for value in event.values.values()] == [int, float]


def test_a_metric_that_is_no_number_is_named():
    """With all others that are none, and names that every record has."""
    with pytest.raises(InvalidConfigError) as caught:
        log_metric(accuracy="0.5", losses=torch.ones(2), time=3.0, fine=1)
    assert str(caught.value) == (
        "3 problems:\n"
        "  `accuracy` (='0.5') must be a number.\n"
        "  `losses` (=tensor([1., 1.])) must be a number.\n"
        "  `time` is a field of every record, so a metric cannot have that name (it was 3.0)."
    )


def test_a_closed_stderr_stops_no_program():
    """Reporting a failure to log writes to stderr as well."""
    closed = io.StringIO()
    closed.close()
    init_logging(LogConfig.testing())
    with contextlib.redirect_stderr(closed):
        LOGGER.warning("nobody hears this")


def test_a_host_application_that_switches_loggers_off_does_not_keep_ours_off():
    """`logging.config` disables every logger it was not told of; who calls `init_logging` wants to see lines."""
    lines = io.StringIO()
    LOGGER.disabled = True  # what dictConfig does by default
    init_logging(LogConfig.testing(), stream=lines)
    LOGGER.warning("heard")
    assert lines.getvalue() == "WARN  heard\n"


def test_the_lines_of_helpers_name_their_caller():
    """The line of a helper inside bedstone would help nobody."""
    lines = io.StringIO()
    init_logging(LogConfig.development(), stream=lines)
    log_metric(accuracy=0.5)
    log_training_step(1, 2, 0.5, 0.1)
    log_memory_usage(1, 2)
    assert all(" test_logging.py:" in line for line in lines.getvalue().splitlines())


def test_a_loss_that_still_has_its_graph_is_a_number():
    """Python's `float` warns of it, and of an array of one element."""
    seen = []
    with sink(seen.append):
        log_training_step(1, 2, torch.ones(1, requires_grad=True) * 2, np.float32(0.5))
        log_metric(norm=np.array([2.0]), count=torch.tensor(3))
    assert (seen[0].loss, seen[0].lr, seen[1].values) == (2.0, 0.5, {"norm": 2.0, "count": 3})


def test_a_record_of_the_host_with_an_event_of_its_own_is_a_line_too():
    """`extra={"event": ...}` is a usual word."""
    record = logging.makeLogRecord({"name": "bedstone.x", "levelno": 20, "msg": "hi", "event": "click"})
    assert json.loads(JsonFormatter().format(record))["event"] == "click"
