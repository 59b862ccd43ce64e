"""`bedstone doctor` tells how things stand, in words and colours, to people and programs; red is exit code 1."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bedstone.cli.app import app
from bedstone.cli.doctor import show
from bedstone.cli.findings import Finding

GREEN = Finding(topic="versions", subject="torch", status="ok", text="2.13.0")
YELLOW = Finding(topic="devices", subject="cuda:0", status="look", text="hidden [MASKED]", remedy="Unset the mask.")
RED = Finding(topic="plug-ins", subject="npu", status="bad", text="does not load", details="Traceback\n  line 2")


def shown(findings, **console):
    """What people see."""
    stream = io.StringIO()
    show(findings, Console(file=stream, highlight=False, **console))
    return stream.getvalue()


def test_a_line_each_under_its_topic_with_the_remedy_below():
    """Words, not colour alone; details in full."""
    assert shown([YELLOW, GREEN, RED]) == (
        "devices\n"
        "  look cuda:0: hidden [MASKED]\n"
        "       -> Unset the mask.\n"
        "versions\n"
        "  ok   torch: 2.13.0\n"
        "plug-ins\n"
        "  bad  npu: does not load\n"
        "       Traceback\n"
        "         line 2\n"
        "\n"
        "Broken: plug-ins, npu.\n"
    )


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([GREEN], "Everything is in order."),
        ([GREEN, YELLOW], "Nothing is broken. 1 line above deserves a look."),
        ([YELLOW, YELLOW], "Nothing is broken. 2 lines above deserve a look."),
        ([RED, YELLOW], "Broken: plug-ins, npu."),
    ],
)
def test_the_last_line_sums_up(findings, verdict):
    """One sentence."""
    assert shown(findings).splitlines()[-1] == verdict


def test_a_terminal_gets_colours_and_lines_of_its_width():
    """Wrapped between words, indented under the first."""
    long = Finding(topic="devices", subject="cpu", status="ok", text="word " * 30)
    text = shown([long], force_terminal=True, width=60)
    assert "\x1b[32m  ok   \x1b[0m" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert all(len(line) <= 60 for line in plain.splitlines())
    assert plain.splitlines()[2].startswith("       word word")


def test_the_real_command_explains_this_machine():
    """Without a GPU it says why there is none, and that is no failure."""
    done = CliRunner().invoke(app, ["doctor"], env={"BEDSTONE_FORCE_CPU": "1"})
    assert done.exit_code == 0, done.output
    assert "  ok   choice (cpu, from BEDSTONE_FORCE_CPU): cpu: " in done.stdout
    assert re.search(r"  (ok  |look) cuda(:0)?: (usable|unusable|absent) ", done.stdout)
    assert "  ok   BEDSTONE_FORCE_CPU: 1 (decides the device)" in done.stdout
    assert "bedstone[train]: " in done.stdout


def test_json_is_one_object_with_the_facts_in_full():
    """And nothing else on stdout."""
    done = CliRunner().invoke(app, ["doctor", "--json"], env={"BEDSTONE_FORCE_CPU": "1"})
    facts = json.loads(done.stdout)
    assert set(facts) == {"status", "findings", "devices", "plugins"}
    assert facts["devices"]["selected"] == "cpu"
    assert {finding["topic"] for finding in facts["findings"]} >= {
        "devices",
        "versions",
        "parts",
        "environment",
        "room",
    }


def test_a_bad_variable_is_red_and_the_other_checks_still_run():
    """Exit code 1, since every run would fail."""
    done = CliRunner().invoke(app, ["doctor"], env={"BEDSTONE_FORCE_CPU": "maybe"})
    assert done.exit_code == 1
    assert "  bad  choice: The environment variable BEDSTONE_FORCE_CPU (='maybe') must be one of" in done.stdout
    assert "torch: " in done.stdout
    assert done.stdout.splitlines()[-1] == "Broken: devices, choice."


def test_a_broken_plug_in_is_shown_with_its_traceback(tmp_path):
    """A real entry point of a package that does not import."""
    info = tmp_path / "leaky-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bedstone.datasets]\nleaky = leaky_format:Leaky\n")
    (tmp_path / "leaky_format.py").write_text("raise ImportError('the well is dry')\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['bedstone', 'doctor']\n"
    program += "from bedstone.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "  bad  bedstone.datasets: leaky: leaky_format:Leaky of leaky 1.0 does not load: " in done.stdout
    assert "       ImportError: the well is dry" in done.stdout
    assert done.stdout.splitlines()[-1] == "Broken: plug-ins, bedstone.datasets: leaky."
