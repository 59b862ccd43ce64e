"""Every failure is one paragraph on stderr with an exit code that tells its kind; tracebacks only with --debug."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bedstone.cli.app import app
from bedstone.cli.errors import Debug, boundary
from bedstone.core.errors import InvalidConfigError, Problem, StorageError
from bedstone.train.errors import InterruptedRunError


def invoke(action, *arguments):
    """Run `action` inside the boundary of a small command."""
    small = typer.Typer()

    @small.callback()
    def top(context: typer.Context, debug: Debug = False):
        context.obj = debug

    @small.command()
    def act(context: typer.Context, debug: Debug = False):
        with boundary(context, debug=debug):
            action()

    return CliRunner().invoke(small, arguments or ["act"])


def raising(error):
    """A function that raises `error`."""

    def action():
        raise error

    return action


def test_a_core_error_is_one_paragraph_and_exit_code_2():
    """Message and remedy, as the error built them."""
    done = invoke(raising(StorageError("The disk is full.", path="runs/a", remedy="Make room.")))
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", "error: The disk is full. Make room.\n")


def test_ctrl_c_is_told_apart_from_the_error_it_is_wrapped_in():
    """Python 3.11 wraps whatever `__set_name__` raises, also a KeyboardInterrupt that only came by."""

    class Slow:
        def __set_name__(self, owner, name):
            raise KeyboardInterrupt

    def action():
        type("Built", (), {"field": Slow()})

    done = invoke(action)
    assert (done.exit_code, done.stderr) == (130, "stopped: Interrupted; nothing more was written.\n")


def test_several_problems_stand_one_a_line():
    """All at once, so that one edit mends them."""
    problems = [Problem("lora_r", "(=0) must be at least 1."), Problem("max_steps", "(=-1) must be at least 1.")]
    done = invoke(raising(InvalidConfigError(problems=problems)))
    assert done.stderr == (
        "error: 2 problems:\n  `lora_r` (=0) must be at least 1.\n  `max_steps` (=-1) must be at least 1.\n"
    )


def test_markup_and_long_paths_are_shown_as_they_are():
    """A path in brackets is no style, and a long line is not broken in a pipe."""
    path = f"[red]/{'x' * 200}[/red]"
    done = invoke(raising(StorageError(f"Could not read {path}.", path=path)))
    assert done.stderr == f"error: Could not read {path}.\n"


def test_control_characters_do_not_reach_the_terminal():
    """The text may come from a file."""
    done = invoke(raising(InvalidConfigError("`name` (=\x1b[2Jx\r) is no name.")))
    assert done.stderr == "error: `name` (=\\x1b[2Jx\\r) is no name.\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_how_to_go_on(number, code):
    """128 and the signal, as shells count."""
    error = InterruptedRunError(
        "Stopped by a signal after step 3 of 9. A checkpoint is in runs/a/checkpoints/step-000003.",
        signal=number,
        step=3,
        checkpoint=Path("runs/a/checkpoints/step-000003"),
        remedy="Run the same command with `--resume auto` to go on.",
    )
    done = invoke(raising(error))
    assert done.exit_code == code
    assert done.stderr == f"stopped: {error}\n"
    assert "--resume auto" in done.stderr


def test_ctrl_c_is_one_line():
    """Before a run began, or when the second one would not wait."""
    done = invoke(raising(KeyboardInterrupt()))
    assert (done.exit_code, done.stderr) == (130, "stopped: Interrupted; nothing more was written.\n")


def test_anything_else_is_called_a_bug_of_bedstone():
    """With type and text, without a traceback."""
    done = invoke(raising(ZeroDivisionError("division by zero")))
    assert done.exit_code == 1
    assert done.stderr == (
        "bug: ZeroDivisionError: division by zero\n"
        "This is a bug of bedstone, not of your input. Run the same command with --debug and report what it shows.\n"
    )


def test_a_bug_without_a_message_is_still_named():
    """`assert` often has none."""
    assert invoke(raising(AssertionError())).stderr.startswith("bug: AssertionError: no message\n")


@pytest.mark.parametrize("arguments", [["--debug", "act"], ["act", "--debug"]])
@pytest.mark.parametrize("error", [StorageError("The disk is full.", path="a"), ZeroDivisionError("zero")])
def test_debug_shows_the_traceback_wherever_it_stands(arguments, error):
    """Before the command's name or after it; the exit code stays."""
    done = invoke(raising(error), *arguments)
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert "in action\n    raise error\n" in done.stderr
    assert done.exit_code == invoke(raising(error)).exit_code


@pytest.mark.parametrize(
    ("module", "extra"),
    [("peft", "train"), ("transformers.models.llama", "train"), ("yaml", "train"), ("gguf", "gguf")],
)
def test_a_missing_optional_package_names_the_line_that_installs_it(module, extra):
    """That is no bug, and the user can mend it."""
    done = invoke(raising(ModuleNotFoundError(f"No module named {module!r}", name=module)))
    assert done.exit_code == 2
    assert done.stderr == f"error: The package {module!r} is not installed. Run `pip install 'bedstone[{extra}]'`.\n"


def test_a_missing_module_of_ours_is_a_bug():
    """No extra has it."""
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("bedstone.no_such_room")
    assert invoke(raising(caught.value)).exit_code == 1


def test_a_warning_is_one_line_and_future_ones_are_for_programmers():
    """Python's own form shows a source line, which helps nobody at a terminal."""

    def action():
        warnings.simplefilter("always")
        warnings.warn("the pump is slow", UserWarning, stacklevel=1)
        warnings.warn("old name", DeprecationWarning, stacklevel=1)
        warnings.warn("old name", FutureWarning, stacklevel=1)

    assert invoke(action).stderr == "warning: the pump is slow\n"
    assert invoke(action, "act", "--debug").stderr.count("warning: ") == 3


def test_a_reader_that_left_is_no_error():
    """`bedstone doctor | head -1` ends in silence."""
    command = f"{sys.executable} -m bedstone doctor | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=os.environ)
    assert done.stdout == "devices\n"
    assert "Traceback" not in done.stderr
    assert "bug:" not in done.stderr


def test_a_broken_pipe_is_left_to_typer():
    """The same, without the luck of timing."""
    done = invoke(raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert (done.exit_code, done.stderr) == (1, "")


def test_the_real_command_answers_a_missing_file_without_a_traceback(tmp_path):
    """The whole way from the shell."""
    done = CliRunner().invoke(app, ["validate", str(tmp_path / "none.yaml")])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: There is no config file {tmp_path / 'none.yaml'}.")
    assert len(done.stderr.splitlines()) == 1
