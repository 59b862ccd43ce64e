"""`validate`, `train` and `generate`, the way from a configuration file to an answer, as a person types it."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from bedstone.cli.app import app
from bedstone.cli.train import place_lines, result_lines, value_lines

COMMAND = [sys.executable, "-m", "bedstone"]


def run(*arguments, check=True):
    """The real command in a process of its own, its output in pipes."""
    words = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert not check or done.returncode == 0, done.stderr
    return done


# --- validate ------------------------------------------------------------------------------------


def test_validate_shows_what_was_written_and_where(job):
    """Key, value, origin; the defaults are counted."""
    done = CliRunner().invoke(app, ["validate", str(job.config), "--set", "lora_r=4"])
    assert done.exit_code == 0, done.output
    assert re.search(r"^adapter: lora +line \d+$", done.stdout, re.MULTILINE)
    assert re.search(r"^lora_r: 4 +--set$", done.stdout, re.MULTILINE)
    assert re.search(r"^\d+ more keys have their defaults; --all shows them\.$", done.stdout, re.MULTILINE)
    command = shlex.join(["bedstone", "train", str(job.config), "--set", "lora_r=4"])
    assert done.stdout.splitlines()[-1] == f"{job.config} is valid. Start it with: {command}"
    assert not job.run.exists()


def test_validate_all_shows_the_defaults_too(job):
    """Every key that has an effect."""
    done = CliRunner().invoke(app, ["validate", str(job.config), "--all"])
    assert "seed: 42  # default" in done.stdout


def test_validate_lists_every_problem_at_once(job):
    """Exit code 2; file and line of each."""
    job.change(lora_rr=3, max_steps=0)
    done = CliRunner().invoke(app, ["validate", str(job.config)])
    assert done.exit_code == 2
    head, *problems = done.stderr.splitlines()
    assert head == "error: 2 problems:"
    assert all(line.startswith(f"  {job.config}:") for line in problems)
    assert "Did you mean 'lora_r'?" in done.stderr


def test_value_lines_keep_a_comment_sign_inside_a_value():
    """Only the last one is the origin."""
    lines = value_lines('path: "a  # b"  # line 2\nseed: 42  # default\nlora_r: 8  # default\n')
    assert lines == ['path: "a  # b"   line 2', "2 more keys have their defaults; --all shows them."]


# --- train and generate --------------------------------------------------------------------------


@pytest.mark.slow
def test_train_then_generate_in_pipes(job):
    """Results on stdout, everything else on stderr, no control character in either."""
    done = run("train", job.config)
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr.splitlines()[0].startswith("Threads: ")
    assert "Using cpu (cpu from argument)" in done.stderr
    assert "train: 36 rows" in done.stderr
    assert re.search(r"^step 1/6: loss \d+\.\d{4}, \d+ tokens/s, ", done.stderr, re.MULTILINE)
    assert re.search(
        r"^held-out loss  \d\.\d{3} -> \d\.\d{3}  \(-\d+\.\d %\), 6 steps in \d+s$", done.stdout, re.MULTILINE
    )
    assert "asked   Say 3.\n" in done.stdout
    assert f"adapter {job.run / 'adapter'}\n" in done.stdout
    command = next(line for line in done.stdout.splitlines() if line.startswith("next")).removeprefix(
        "next    bedstone "
    )
    asked = run(*shlex.split(command), "--max-new-tokens", "8")
    after = json.loads((job.run / "summary.json").read_text())["answers"][0]["after"]
    assert asked.stdout == f"{after}\n"


@pytest.mark.slow
def test_on_a_terminal_a_bar_moves_and_a_box_closes_the_run(job):
    """The real thing, in a pseudo-terminal."""
    text = in_terminal("train", job.config)
    assert "\x1b[?25l" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert re.search(r"training .* 6/6 loss \d\.\d{4}, \d+ tokens/s", plain)
    assert "─ done ─" in plain
    assert re.search(r"│ held-out loss  \d\.\d{3} -> \d\.\d{3}", plain)


@pytest.mark.slow
def test_sigterm_ends_the_run_with_a_checkpoint_and_the_way_on(job):
    """As a scheduler stops it; Ctrl-C takes the same way with code 130."""
    job.change(max_steps=100_000)
    with subprocess.Popen([*COMMAND, "train", str(job.config)], stderr=subprocess.PIPE, text=True) as process:
        seen = []
        for line in process.stderr:
            seen.append(line)
            if line.startswith("step 1/"):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    assert re.fullmatch(
        r"stopped: Stopped by SIGTERM after step \d+ of 100000\. A checkpoint is in \S+step-\d+\. "
        r"Run the same command with `--resume auto` to go on\.\n",
        seen[-1],
    )
    (checkpoint,) = (job.run / "checkpoints").iterdir()
    assert checkpoint.name.startswith("step-")


@pytest.mark.slow
def test_a_run_outlives_whoever_read_its_lines(job):
    """`bedstone train job.yaml 2>&1 | head -1` cuts the lines off, not the training."""
    with subprocess.Popen([*COMMAND, "train", str(job.config)], stderr=subprocess.PIPE, text=True) as process:
        process.stderr.readline()
        process.stderr.close()
        assert process.wait() == 0
    assert (job.run / "summary.json").is_file()
    assert (job.run / "report.html").is_file()


@pytest.mark.parametrize("module", ["torch.torch_version", "torch.nn.modules.linear", "bedstone.core.errors"])
def test_ctrl_c_before_the_run_is_one_line(job, module):
    """Torch takes a second to import; nobody is shown a traceback of it."""
    words = [sys.executable, "-X", "importtime", "-m", "bedstone", "train", str(job.config)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:  # one for each module that is imported
            if line.split()[-1] == module:
                process.send_signal(signal.SIGINT)
                break
        errors = process.stderr.read()
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "stopped: Interrupted; nothing more was written."
    assert "Traceback" not in errors


def test_generate_from_a_folder_without_a_run_is_an_error_of_the_user(tmp_path):
    """It names what is missing."""
    done = CliRunner().invoke(app, ["generate", str(tmp_path), "Hello"])
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == (
        f"error: {tmp_path} holds no run: config.yaml is missing. Name a folder that `bedstone train` wrote."
    )


def in_terminal(*arguments):
    """What the command writes to a terminal."""
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=child, stdout=child, stderr=child, env=environment
    )
    os.close(child)
    chunks = []
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # the other side is closed: that is how a Linux terminal ends
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(parent)
    assert process.wait() == 0, b"".join(chunks)
    return b"".join(chunks).decode()


# --- the closing lines ---------------------------------------------------------------------------


def finished(**summary):
    """A finished run, as plain values."""
    facts = {"steps": 60, "seconds": 125.0, "loss_before": 2.0, "loss_after": 1.5, "answers": ()}
    folder = Path("runs/my run")
    return SimpleNamespace(
        folder=folder,
        adapter=folder / "adapter",
        weights=folder / "adapter",
        report=folder / "report.html",
        summary=SimpleNamespace(**{**facts, **summary}),
    )


def test_the_end_says_what_changed_where_it_lies_and_what_to_type_next():
    """Ready to be pasted, also with a space in the path."""
    answer = SimpleNamespace(prompt="What is\nabs?", before="", after="The\nabsolute  value.")
    assert result_lines(finished(answers=(answer,))) == [
        "held-out loss  2.000 -> 1.500  (-25.0 %), 60 steps in 2m05s",
        "",
        "asked   What is abs?",
        "before  ",
        "after   The absolute value.",
    ]
    assert place_lines(finished(answers=(answer,))) == [
        "adapter runs/my run/adapter",
        "report  runs/my run/report.html",
        "all     runs/my run",
        "next    bedstone generate 'runs/my run' 'What is\nabs?'",
    ]


def test_a_question_that_came_with_a_resume_has_no_answer_before():
    """It was not asked then."""
    answer = SimpleNamespace(prompt="What is abs?", before=None, after="It is.")
    assert result_lines(finished(answers=(answer,)))[2:] == ["asked   What is abs?", "after   It is."]


def test_one_step_is_one_step():
    """Not "1 steps"."""
    assert result_lines(finished(steps=1, loss_before=None, loss_after=None))[0].startswith("1 step in 2m05s;")


def test_without_held_out_rows_no_loss_is_claimed():
    """A training loss would not be the same thing."""
    assert result_lines(finished(loss_before=None, loss_after=None))[0] == (
        "60 steps in 2m05s; no held-out data, so no held-out loss"
    )
