"""The README's section of figures, written from the result files so that it can say nothing else.

    python benchmarks/quote.py            # print it
    python benchmarks/quote.py --write    # put it between the markers in README.md

A test fails when README and result files differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- figures: written by benchmarks/quote.py -->", "<!-- end of figures -->"
# What of core_overheads.json a newcomer asks about; the file has more.
QUOTED = (
    ("import", "the package"),
    ("import", "with device selection"),
    ("import", "help of the command"),
    ("get_device", "cached, no wish"),
    ("estimates", "tensor, 4 dimensions"),
    ("estimates", "attention"),
    ("tracker", "allocate and deallocate"),
    ("dispatch", "one tensor"),
    ("errors", "a shape check"),
    ("errors", "try and except"),
    ("errors", "translate_torch_errors"),
    ("errors", "raised and caught"),
    ("interop", "8 floats, there and back"),
    ("interop", "64 MiB, there and back"),
)


def section() -> str:
    """Return the section as Markdown."""
    core, kills, control = (_read(name) for name in ("core_overheads", "kill_resume", "shuffled_control"))
    resumed, learned = kills["figures"], control["figures"]
    killed = sum(len(outcome["kills"]) for outcome in resumed["outcomes"])
    lines = [
        (
            f"- **Exact resume**: {resumed['equal']} of {resumed['runs']} runs with dropout, shuffling and two workers, killed with "
            f"`kill -9` {killed} times in all at random moments, ended with the SHA-256 of the run that was never killed."
        ),
        (
            f"- **The demo learns**: held-out loss {learned['loss_before']:.3f} -> {learned['loss_after']:.3f} nats a token "
            f"({-learned['fall']:.1%}) in {learned['steps']} steps. With shuffled answers the same run ends at "
            f"{learned['loss_after_shuffled']:.3f}: most of the fall is style, {learned['gap_nats']:.3f} nats are the answers "
            f"(target {learned['target_gap_nats']})."
        ),
        _qlora(_read("qlora_step")),
        "- **The foundation is cheap**, beside two peers in the same run; where a peer wins, the table says so:",
        "",
        *_table(core["figures"]["cases"]),
        "",
        (
            f"Medians, {core['cpu']}, {core['cores']} cores, load {core['load'][0]}, torch {core['versions']['torch']}, accelerate "
            f"{core['versions']['accelerate']}, rust-ai-core-bindings {core['versions']['rust-ai-core-bindings']} (the original, "
            "compiled; its tracker and estimates wrap where ours raise). Spread and circumstances: `benchmarks/results/`."
        ),
    ]
    return "\n".join(lines)


def _qlora(result: dict[str, Any]) -> str:
    cases = result["figures"]["cases"]
    time, memory = (
        " and ".join(f"{value:.2f}" for value in values)
        for values in ([case["time_ratio"]["median"] for case in cases], [case["peak_ratio"] for case in cases])
    )
    sizes = " and ".join(str(case["batch_size"]) for case in cases)
    return (
        f"- **A QLoRA step** of SmolLM2 with the same NF4 codes takes {time} times the time and {memory} times the memory of peft + bitsandbytes "
        f"{result['versions']['bitsandbytes']} at batch {sizes} ({result['cpu']}), with the same losses to "
        f"{max(case['loss_difference'] for case in cases):.0e}. [More](docs/explanation/kernels.md#what-was-measured), also where bitsandbytes wins."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="change README.md")
    if not parser.parse_args().write:
        sys.stdout.write(section() + "\n")
        return
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n{section()}\n{END}{after}", encoding="utf-8")


def _read(name: str) -> dict[str, Any]:
    return json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))


def _table(cases: list[dict[str, Any]]) -> list[str]:
    found = {(case["group"], case["what"]): case for case in cases}
    rows = ["| what | bedstone | beside it | ratio |", "|---|---|---|---|"]
    for name in QUOTED:
        case = found[name]
        rows += [_row(case, peer) for peer in case["peers"] or [None]]
    return rows


def _row(case: dict[str, Any], peer: dict[str, Any] | None) -> str:
    ours = f"{_figure(case['median'])} {case['unit']}"
    what = f"{case['group']}: {case['what']}"
    if peer is None:
        return f"| {what} | {ours} | none has it | |"
    theirs = f"{_figure(peer['median'])} {case['unit']}, {peer['peer']}"
    return f"| {what} | {ours} | {theirs} | {_figure(peer['ratio']['median'])} |"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
