"""`bedstone kernels` answers on any machine, and every mistake ends in one paragraph."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from bedstone.cli.app import app


def run(*words):
    """Exit code, stdout and stderr of a command."""
    done = CliRunner().invoke(app, ["kernels", *words])
    return done.exit_code, done.stdout, done.stderr


def test_list_names_every_operation_and_its_implementations():
    """And what the compiled library uses."""
    code, out, _ = run("list")
    assert code == 0
    assert "linear_4bit_input_grad" in out
    assert "native (exact), reference (exact)" in out
    assert out.splitlines()[-1].startswith("native: ")


def test_explain_tells_of_a_device_that_is_not_here():
    """What would be chosen there, and why not the others."""
    code, out, _ = run("explain", "nf4_linear", "--device", "cuda", "--dtype", "bfloat16", "--shape", "1,4096,4096")
    assert code == 0
    first, *_, last = (
        out.splitlines()
    )  # `tests/kernels/triton/test_absent.py` has those between, which depend on what is installed
    assert first.startswith("linear_4bit on cuda, bfloat16, 1x4096x4096: ")
    assert torch.cuda.is_available() or last.startswith("This is for a machine with cuda, and here is none: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["test", "bench"])
def test_a_device_that_is_not_here_is_one_paragraph(command):
    """Not one failure for each implementation."""
    code, out, err = run(command, "nf4_linear", "--device", "cuda")
    assert code != 0
    assert out == ""
    assert err.startswith("error: torch cannot use cuda here: ")
    assert err.endswith("`bedstone doctor` says what this machine has.\n")


def test_test_checks_one_operation():
    """Each implementation a line."""
    code, out, _ = run("test", "ternary_quantize")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()] == [["ok", "quantize_ternary:"]] * 2


def test_explain_tells_why_flex_attention_is_not_for_a_cpu():
    """What is asked besides the shape stands in the first line."""
    code, out, _ = run("explain", "attention", "--shape", "4096,512,64", "--grad", "--options", "causal window")
    assert code == 0
    first, second = out.splitlines()
    assert first == "attention on cpu, float32, 4096x512x64, differentiable, causal window: reference (exact)"
    assert second.startswith("  not flex: it runs on cuda, not on cpu: on a CPU flex_attention has no derivative")


def test_test_says_what_it_does_not_try():
    """An implementation for another device is not broken."""
    code, out, _ = run("test", "glu")
    assert code == 0
    assert out.splitlines()[0] == "--      glu: liger is not tried: it runs on cuda"
    assert out.splitlines()[1].startswith("ok      glu: reference, ")


def test_bench_measures_and_writes(tmp_path):
    """Every implementation that can."""
    code, out, _ = run("bench", "nf4_linear", "--shape", "1,64,64", "--out", str(tmp_path / "b.json"))
    assert code == 0
    assert "GB/s" in out
    result = json.loads((tmp_path / "b.json").read_text())
    assert set(result["implementations"]) == {"native", "reference"}
    assert (
        result["spec"].items() >= {"device": "cpu", "dtype": "float32", "inputs": 1, "rows": 64, "columns": 64}.items()
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explain", "nf4_linr"], "No operation is called 'nf4_linr'. Did you mean 'nf4_linear'?"),
        (["explain", "nf4_linear", "--shape", "3"], "`--shape` (='3') must be two or three whole numbers"),
        (["explain", "nf4_linear", "--dtype", "float33"], "float33"),
        (["bench", "nf4_linear", "--device", "cuda"], "torch cannot use cuda here"),
        (["bench", "nf4_linear", "--device", "nothing"], "torch cannot use nothing here"),
    ],
)
def test_a_mistake_ends_in_one_paragraph(words, said):
    """With what to do, and exit code 2."""
    code, out, err = run(*words)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
