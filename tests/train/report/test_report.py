"""The report tells a run from its folder alone, escapes what it finds there, and has something to say about any run."""

from __future__ import annotations

import errno
import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedstone.core.errors import StorageError
from bedstone.train.report import write_report
from bedstone.train.report.page import page
from bedstone.train.report.read import Record, RunFiles

from . import example_run as example

INLINE = {"bdi", "code", "span", "strong"}
VOID = {"meta", "br", "rect", "line", "circle", "path", "polyline"}
HOSTILE = (
    "</script><script>alert(1)</script> \"'<img src=x onerror=alert(1)> \u202eevil \ud800 \x00 \U0001f600 " + "w" * 3000
)


class Page(HTMLParser):
    """A page taken apart: its text, its elements, and whether every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], f"never closed: {self._open}"
        self.text = " ".join(self.text.replace("\xa0", " ").split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag
        self.text += "" if tag in INLINE else " "

    def handle_data(self, data):
        if not {"style", "script", "svg"} & set(self._open):
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def report(folder, events, **files) -> Page:
    """Write a run folder and its report, and return the report taken apart."""
    path = write_report(example.write_run(folder / "demo", events, **files))
    return Page(path.read_text(encoding="utf-8"))


def wide_loss(text: str) -> str:
    """Return the wide drawing of the loss."""
    found = re.search(r'<svg role="img" aria-label="Loss by step.*?</svg>', text, re.DOTALL)
    assert found
    return found.group()


def test_says_first_whether_the_run_worked(tmp_path):
    """Name, base model and the verdict stand at the top."""
    shown = report(tmp_path, example.whole_run())
    assert shown.text.startswith("demo: bedstone run report demo ")
    assert "A fine-tune of HuggingFaceTB/SmolLM2-135M-Instruct" in shown.text
    assert "Held-out loss 3.81 \N{RIGHTWARDS ARROW} 2.75, \N{MINUS SIGN}28 %." in shown.text
    assert "The run finished after step 36 of 36 and 4 min 18 s at work, resumed twice on the way." in shown.text


@pytest.mark.parametrize(
    "fact",
    [
        "Why: No GPU: torch was built without CUDA.",
        "460,800 of 134,515,008 (0.343 %)",
        "train 812 91,234 40,321 3 1",
        "test 90 9,876 4,321 0 0",
        "Before (step 0) I am not sure what you mean by that. Sorry!",
        "After (step 36) Return the absolute value of a number.",
        "interrupted by SIGINT",
        "killed, no last word",
        "Steps taken again because they came after the checkpoint that was resumed from: 9.",
        "1 damaged checkpoint found and not used:",
        "step-000024: adapter.safetensors has 12 bytes, expected 5,600,024.",
        "12 step-000012 5.34 MiB 0.21 s",
        "learning_rate: 0.0004 # --set",
        "packages.torch 2.13.0",
        "devices[0].threads 2",
        "base = PeftConfig.from_pretrained('runs/demo/adapter').base_model_name_or_path",
    ],
)
def test_tells_each_part_of_the_story(tmp_path, fact):
    """Device, data, answers, stops, damage, checkpoints, configuration, manifest and use are all there."""
    assert fact in report(tmp_path, example.whole_run()).text


def test_tells_that_the_base_model_was_packed_and_loads_it_so(tmp_path):
    """The adapter was trained on the packed weights: the lines that load it pack the base in the same way."""
    options = {"scheme": "nf4", "block_size": 64}
    sizes = {"dense_bytes": 2**20, "packed_bytes": 2**17}
    packed = example.event("model_quantized", 1, scheme="nf4", options=options, layers=210, left_dense={}, **sizes)
    shown = report(tmp_path, [packed, *example.whole_run()]).text
    assert "Base model packed nf4: 1 MiB → 128 KiB" in shown
    assert "packed = quant.BedstoneConfig({'scheme': 'nf4', 'block_size': 64})" in shown
    assert "Base model packed" not in report(tmp_path / "dense", example.whole_run()).text


def test_a_resume_takes_back_the_steps_it_repeats(tmp_path):
    """Of steps that stand in the file twice, the later ones count, and nothing after the resumed step stays."""
    repeated = [{**one, "loss": 9.0} for one in example.steps(19, 27, 3705)]
    events = [*example.first_stretch(), *example.setup(3700, 18), *repeated, *example.setup(9000, 18)]
    path = write_report(example.write_run(tmp_path, [*events, *example.steps(19, 20, 9005)]))
    drawing = wide_loss(path.read_text(encoding="utf-8"))
    assert "step 20: " in drawing
    assert "step 21: " not in drawing
    assert "9.000" not in drawing


def test_a_start_from_the_beginning_leaves_out_what_was_before(tmp_path):
    """Another run in the same folder does not mix with this one."""
    shown = report(tmp_path, [*example.first_stretch(), *example.setup(9000, 0), *example.steps(1, 2, 9005)])
    assert "Left out: 1 stretch from before the run was begun again from the beginning." in shown.text
    assert "interrupted by" not in shown.text
    assert "2 of 36" in shown.text


def test_marks_stops_and_resumes_in_the_plots(tmp_path):
    """A person sees in the curve where the run was in pieces."""
    path = write_report(example.write_run(tmp_path, example.whole_run()))
    text = path.read_text(encoding="utf-8")
    assert "<title>interrupted, resumed twice</title>" in wide_loss(text)
    assert "<title>killed, resumed</title>" in text


def test_plots_say_their_numbers_units_and_where_their_axis_starts(tmp_path):
    """Each plot has a text for those who do not see it, and an axis without 0 says so."""
    text = write_report(example.write_run(tmp_path, example.whole_run())).read_text(encoding="utf-8")
    drawing = wide_loss(text)
    assert drawing.count('class="at"') == 37  # 36 steps and the evaluation before them
    assert "Held-out loss 3.810 at step 0, 2.750 at step 36." in drawing
    assert "loss, nats a token (axis starts at 2.5, not 0)" in drawing
    assert text.count('<svg role="img" aria-label="') == text.count("<svg") == 8


def test_needs_nothing_from_elsewhere(tmp_path):
    """No address, no file, and a policy that forbids any request."""
    shown = report(tmp_path, example.whole_run())
    for tag, attributes in shown.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not {"src", "href", "srcset", "action", "style"} & set(attributes)
    text = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|//[a-z]", re.sub(r"(?m)^// .*$", "", text))
    policies = [a["content"] for t, a in shown.elements if a.get("http-equiv") == "Content-Security-Policy"]
    expected = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert policies == [expected]


def test_can_be_read_by_those_who_do_not_see_it(tmp_path):
    """One main heading, headings in order, tables with captions and scopes, a language and a title."""
    shown = report(tmp_path, example.whole_run())
    levels = [int(tag[1]) for tag, _ in shown.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert shown.count("caption") == shown.count("table") > 0
    assert all("scope" in attributes for tag, attributes in shown.elements if tag == "th")
    assert ("html", {"lang": "en"}) in shown.elements
    assert shown.count("title") > 1


def hostile_run() -> list[dict]:
    """Return a run whose every text is an attack."""
    kept = {"event", "time"}
    return [
        {key: HOSTILE if isinstance(value, str) and key not in kept else value for key, value in one.items()}
        for one in [*example.whole_run(), example.event("resume_differs", 9000, differences="x")]
    ]


def test_text_from_files_stays_text(tmp_path):
    """Hostile names, prompts, answers, reasons, configuration and manifest add no element to the page."""
    tame = report(tmp_path / "tame", example.whole_run())
    wild = report(
        tmp_path / "wild", hostile_run(), config=HOSTILE.replace("\ud800", ""), manifest={HOSTILE: [{HOSTILE: HOSTILE}]}
    )
    assert wild.count("script") == tame.count("script") == 1
    assert wild.count("img") == 0
    assert "alert(1)" in wild.text
    written = (tmp_path / "wild" / "demo" / "report.html").read_text(encoding="utf-8")
    assert "\x00" not in written
    assert not any("onerror" in name for _, attributes in wild.elements for name in attributes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = [*sorted({one["event"] for one in example.whole_run()}), "error", "resume_differs", "model_converted"]
FIELDS = sorted({field for one in example.whole_run() for field in one} - {"event"})
EVENTS = st.builds(
    lambda name, fields: Record({"event": name, **fields}),
    st.sampled_from(NAMES),
    st.dictionaries(st.sampled_from(FIELDS), JSON | st.integers(0, 50) | st.floats(0, 5), max_size=10),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EVENTS, max_size=12), st.none() | st.text(max_size=50), st.none() | st.dictionaries(st.text(), JSON))
def test_has_something_to_say_about_any_events(records, config, manifest):
    """Missing fields, wrong types, huge numbers and odd text never stop a report, and the page stays well formed."""
    shown = Page(page(RunFiles(name="x", records=tuple(records), config=config, manifest=manifest)))
    assert shown.count("h1") == 1
    assert not any(
        "nan" in str(value) or "inf" in str(value)
        for tag, a in shown.elements
        if tag in VOID - {"meta"}
        for value in a.values()
    )


@pytest.mark.parametrize(
    ("events", "verdict"),
    [
        ([], "No training step has been logged yet."),
        (example.setup(0), "No training step has been logged yet."),
        ([*example.setup(0), *example.steps(1, 1, 5)], "Training loss 3.58 after 1 step so far."),
        ([example.event("evaluated", 3, step=0, loss=3.81)], "Held-out loss 3.81, evaluated once so far: nothing to compare it with."),
        (example.steps(1, 36, 0), "Training loss 3.48 \N{RIGHTWARDS ARROW} 2.61, \N{MINUS SIGN}25 % so far (means of the first and last 5 steps; there is no held-out evaluation)."),
        ([example.event("evaluated", 3, step=0, loss=2.0), example.event("evaluated", 4, step=9, loss=2.5)], "Held-out loss 2.00 \N{RIGHTWARDS ARROW} 2.50, +25 % so far: it got worse."),
        ([example.event("evaluated", 3, step=0, loss=2.0), example.event("evaluated", 4, step=9, loss=float("nan"))], "Held-out loss 2.00 \N{RIGHTWARDS ARROW} NaN so far: the run diverged."),
        ([example.event("evaluated", 3, step=0, loss=float("inf")), example.event("evaluated", 4, step=9, loss=2.5)], "Held-out loss infinity \N{RIGHTWARDS ARROW} 2.50 so far."),
        ([example.event("evaluated", 3, step=0, loss=2.0), example.event("evaluated", 4, step=9, loss=2.0)], "Held-out loss 2.00 \N{RIGHTWARDS ARROW} 2.00 so far: unchanged."),
    ],
)  # fmt: skip
def test_young_and_failed_runs_get_an_honest_verdict(tmp_path, events, verdict):
    """Each state of a run has its sentence."""
    assert verdict in report(tmp_path, events).text


def test_steps_without_a_usable_loss_are_named(tmp_path):
    """NaN and infinity are not drawn, but said and marked."""
    losses = [3.0, float("nan"), float("nan"), 2.9, float("inf")]
    events = [
        example.event("training_step", i, step=i, total=5, loss=loss, lr=1e-4) for i, loss in enumerate(losses, 1)
    ]
    shown = report(tmp_path, events)
    assert "3 steps without a usable loss, not drawn: 2 (NaN), 3 (NaN), 5 (infinity)." in shown.text
    text = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert wide_loss(text).count("<title>loss NaN</title>") == 1
    assert wide_loss(text).count('class="at"') == 2


def test_how_a_run_stands_is_said(tmp_path):
    """An interrupted run, one without a last word and one that failed each say how to go on."""
    go_on = "bedstone train CONFIG.yaml --resume auto goes on from the last good checkpoint."
    stopped = report(tmp_path / "a", example.first_stretch()).text
    assert f"The run was interrupted by SIGINT after step 18 of 36. {go_on}" in stopped
    silent = report(tmp_path / "b", [*example.first_stretch(), *example.second_stretch()]).text
    expected = "The run has not said that it ended: it is at work or was killed. Last sign: 2026-02-02 03:42:31 UTC, after step 27 of 36."
    assert expected in silent
    error = example.event("error", 200, code="storage", text="The disk is full.")
    failed = report(tmp_path / "c", [*example.setup(0), *example.steps(1, 3, 5), error]).text
    assert f"The run stopped after step 3 of 36 with an error: The disk is full. {go_on}" in failed


def test_a_torn_last_line_and_broken_lines_are_left_out_and_said(tmp_path):
    """A kill in the middle of a line costs that line only; U+2028 inside a text does not end one."""
    tail = 'not JSON\n[1]\n{"event": "sample_answer", "step": 0, "prompt": "p\u2028q", "answer": "a"}\n{"event": "train'
    shown = report(tmp_path, example.setup(0), tail=tail)
    assert "The last line of events.jsonl was cut off, as a kill leaves it, and is left out." in shown.text
    assert "Left out, because not readable: 2 lines of events.jsonl." in shown.text
    assert "Prompt: p q" in shown.text
    whole = report(tmp_path, example.setup(0), tail='{"event": "training_step", "step": 1, "loss": 3.0}')
    assert "cut off" not in whole.text
    assert "1 of 36" in whole.text


def test_missing_and_broken_papers_are_said(tmp_path):
    """A folder without configuration and manifest still gets its report."""
    shown = report(tmp_path, example.setup(0), config=None, manifest=None)
    assert "The run folder has no config.yaml." in shown.text
    assert "The run folder has no manifest.json." in shown.text
    assert "The file manifest.json does not hold a JSON object." in report(tmp_path, [], manifest=[1]).text


def test_refuses_a_folder_that_is_not_there(tmp_path):
    """The error names the folder and what to give instead."""
    with pytest.raises(StorageError) as caught:
        write_report(tmp_path / "none")
    assert str(caught.value) == (
        f"There is no run folder at {tmp_path / 'none'}. "
        "Give the folder that `bedstone train` printed, for example runs/demo."
    )
    assert caught.value.errno == errno.ENOENT


def test_refuses_a_folder_without_events(tmp_path):
    """Without events there is nothing to tell."""
    with pytest.raises(StorageError) as caught:
        write_report(tmp_path)
    assert str(caught.value) == (
        f"The run folder {tmp_path} has no events.jsonl. Give the folder of a run; it holds this file from its first second on."
    )
    assert caught.value.path == str(tmp_path / "events.jsonl")


def test_the_report_appears_whole_or_not_at_all(tmp_path):
    """Where it cannot be put, the error says so, and nothing half-written stays behind."""
    example.write_run(tmp_path, [])
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StorageError) as caught:
        write_report(tmp_path)
    assert str(caught.value) == f"Could not write the report at {tmp_path / 'report.html'}: Is a directory."
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.yaml",
        "events.jsonl",
        "manifest.json",
        "report.html",
    ]


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    """Nothing but the folder enters the page, not even the time of writing."""
    folder = example.write_run(tmp_path, example.whole_run())
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_long_runs_are_drawn_with_bands_and_stay_small(tmp_path):
    """Twenty thousand steps become 400 points that span their neighbours."""
    events = [
        example.event("training_step", step, step=step, total=20_000, loss=3 + (step % 7) / 10, lr=1e-4)
        for step in range(1, 20_001)
    ]
    path = write_report(example.write_run(tmp_path, events))
    text = path.read_text(encoding="utf-8")
    assert wide_loss(text).count('class="at"') == 400
    assert "Band: smallest to largest training loss of neighbouring steps" in text
    assert "Every 50th logged step, and the last." in text
    assert path.stat().st_size < 2_000_000


def test_full_fine_tuning_is_loaded_without_peft(tmp_path):
    """When every parameter was trained, the result is a model."""
    events = json.loads(json.dumps(example.whole_run()).replace("460800", "134515008"))
    shown = report(tmp_path, events)
    assert "model = AutoModelForCausalLM.from_pretrained('runs/demo/adapter')" in shown.text
    assert "PeftModel" not in shown.text


def test_reads_with_the_standard_library_and_core_alone():
    """The modules of the report import no heavy package of their own."""
    code = (
        "import ast, pathlib, sys\n"
        "from importlib.util import find_spec\n"
        "import bedstone\n"
        "folder = pathlib.Path(bedstone.__file__).parent / 'train' / 'report'\n"
        "roots = {'.'.join(node.module.split('.')[:2]) for file in folder.glob('*.py') for node in ast.walk(ast.parse(file.read_text()))"
        " if isinstance(node, ast.ImportFrom)}\n"
        "print(sorted(root for root in roots if root.split('.')[0] not in sys.stdlib_module_names))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['bedstone.core', 'bedstone.train']"
