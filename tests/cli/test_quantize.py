"""`bedstone quantize` shows what packing saves and costs, and answers what it cannot do with one paragraph and code 2."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from bedstone.cli.app import app
from bedstone.cli.quantize import scheme_of
from bedstone.core.errors import InvalidConfigError, UnknownNameError
from bedstone.quant import FP4, FP8, NF4, Int8, Ternary

pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture
def text(tmp_path):
    """A page of text."""
    path = tmp_path / "page.txt"
    path.write_text("".join(f"Line {n}: What does it return in Python?\n" for n in range(80)))
    return path


def run(*arguments):
    """The command inside of this process."""
    return CliRunner().invoke(app, ["quantize", *map(str, arguments)])


def test_shows_sizes_distances_errors_and_where_everything_is(tiny_model, text, tmp_path):
    """In a process of its own, as a person types it; results on stdout, all else on stderr."""
    out = tmp_path / "out"
    words = [
        sys.executable,
        "-m",
        "bedstone",
        "quantize",
        tiny_model,
        "--scheme",
        "nf4",
        "--out",
        out,
        "--double-quant",
    ]
    done = subprocess.run([*words, "--text", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kept = json.loads((out / "quantization.json").read_text())
    [measured] = kept["texts"]
    assert f"{tiny_model} as nf4 (block_size 64, double_quant True): 4.137 bits a packed weight" in done.stdout
    assert re.search(r"14 packed layers +288 KiB +37\.23 KiB +12\.9%", done.stdout)
    assert re.search(rf"page\.txt +{measured['tokens']:,} +{measured['kl_nats']:.4f} \+- 0\.\d+ +\d+\.\d%", done.stdout)
    assert f"{measured['perplexity_dense']:.2f} -> {measured['perplexity_packed']:.2f}" in done.stdout
    worst = max((layer for layer in kept["layers"] if layer["name"].endswith("up_proj")), key=lambda x: x["error"])
    assert re.search(rf"up_proj +2 +\d+\.\d\d% +{worst['error']:.2%} +{re.escape(worst['name'])}", done.stdout)
    assert "lm_head stays dense: it is the output layer and shares its weight with the embedding." in done.stdout
    assert f"\nreport  {out / 'report.html'}\n" in done.stdout
    assert (out / "report.html").is_file()
    assert done.stderr.startswith("Threads: ")


def test_reads_more_than_one_text_and_skips_more_than_one_layer(tiny_model, text, tmp_path):
    """In the order of the command line."""
    (tmp_path / "other.txt").write_text("What does the user return? " * 40)
    texts = ["--text", tmp_path / "other.txt", "--text", text]
    done = run(tiny_model, "--out", tmp_path / "out", *texts, "--skip", "q_proj", "--skip", "layers.1", "--tokens", 64)
    assert done.exit_code == 0, done.output
    kept = json.loads((tmp_path / "out" / "quantization.json").read_text())
    assert [(found["text"], found["tokens"]) for found in kept["texts"]] == [("other.txt", 63), ("page.txt", 63)]
    assert len(kept["layers"]) == 6
    assert kept["left_dense"]["model.layers.0.self_attn.q_proj"] == "skipped by name"


def refusal(tmp_path, *arguments):
    """What a refused command says; it leaves no folder."""
    done = run(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert not (tmp_path / "out").exists()
    assert done.stdout == ""
    last = done.stderr[done.stderr.index("error:") :]
    assert "Traceback" not in last
    return last.rstrip("\n")


def test_refuses_what_is_not_a_scheme(tiny_model, tmp_path):
    """Known names, the nearest one."""
    said = refusal(tmp_path, tiny_model, "--scheme", "nf5")
    assert said.startswith("error: No quantization scheme is called 'nf5'. Did you mean 'nf4'? Known: ")


def test_refuses_a_block_size_that_is_not_allowed(tiny_model, tmp_path):
    """All of those that are."""
    assert refusal(tmp_path, tiny_model, "--block-size", "48") == (
        "error: NF4 has a problem:\n  `block_size` (=48) must be one of 32, 64, 128, 256, 512, 1024, 2048, 4096."
    )


def test_refuses_texts_and_models_that_are_not_there(tiny_model, tmp_path):
    """By name, before any work."""
    absent = tmp_path / "absent.txt"
    assert refusal(tmp_path, tiny_model, "--text", absent) == (
        f"error: Could not read the text at {absent}: No such file or directory."
    )
    empty = tmp_path / "empty.txt"
    empty.touch()
    assert (
        refusal(tmp_path, tiny_model, "--text", empty)
        == f"error: The text {empty} is empty. Give a text of some pages."
    )
    said = refusal(tmp_path, tmp_path / "nowhere")
    assert said.startswith(f"error: `MODEL` (={str(tmp_path / 'nowhere')!r}): there is no such file or folder. ")


def test_refuses_a_folder_that_is_in_use(tiny_model, tmp_path):
    """Nothing in it is touched."""
    (tmp_path / "notes.txt").write_text("mine")
    done = run(tiny_model, "--out", tmp_path)
    assert done.exit_code == 2
    assert f"error: The output folder {tmp_path} is not empty: it holds notes.txt." in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_needs_an_output_folder(tiny_model):
    """As any command line does."""
    done = run(tiny_model)
    assert done.exit_code == 2
    assert "Missing option '--out'" in done.stderr


# --- the scheme of a command line --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "double_quant", "block_size", "options", "scheme"),
    [
        ("nf4", False, None, [], NF4()),
        ("nf4", True, 128, [], NF4(block_size=128, double_quant=True)),
        ("fp4", False, None, ["block_size=32", "double_quant=true"], FP4(block_size=32, double_quant=True)),
        ("int8", False, 32, ["granularity=block"], Int8("block", 32)),
        ("fp8", False, None, ["format=e5m2", "granularity=tensor"], FP8(granularity="tensor", format="e5m2")),
        ("ternary", False, None, ["granularity=row"], Ternary("row")),
    ],
)
def test_options_of_a_scheme(name, double_quant, block_size, options, scheme):
    """Numbers, words and switches, each in its own type."""
    assert scheme_of(name, double_quant=double_quant, block_size=block_size, options=options) == scheme


@pytest.mark.parametrize(
    ("name", "double_quant", "block_size", "options", "said"),
    [
        ("int8", True, None, [], "The scheme 'int8' has no option 'double_quant'. It has: granularity, block_size."),
        (
            *("int8", False, 32, []),
            "`block_size` (=32) has no effect: a scale of int8 is for a row. Add --option granularity=block.",
        ),
        ("nf4", False, 64, ["block_size=32"], "The option 'block_size' is given twice."),
        (
            "nf4",
            False,
            None,
            ["double_quant"],
            "`--option` (='double_quant') must be KEY=VALUE, for example granularity=block.",
        ),
        ("nf4", False, None, ["=1"], "`--option` (='=1') must be KEY=VALUE, for example granularity=block."),
        (
            "nf4",
            False,
            None,
            ["double_quant=yes"],
            "NF4 has a problem:\n  `double_quant` (='yes') must be true or false.",
        ),
    ],
)
def test_refuses_options_that_a_scheme_does_not_have(name, double_quant, block_size, options, said):
    """Nor any that would change nothing."""
    with pytest.raises(InvalidConfigError) as caught:
        scheme_of(name, double_quant=double_quant, block_size=block_size, options=options)
    assert str(caught.value) == said


def test_an_unknown_scheme_is_named():
    """Before its options are looked at."""
    with pytest.raises(UnknownNameError):
        scheme_of("int9", double_quant=True, block_size=7, options=["a=b"])
