"""The tables of docs/explanation/kernels.md, written from the result files so that the page can say nothing else.

    python benchmarks/packed_page.py            # print them
    python benchmarks/packed_page.py --write    # put them between the markers of the page

A test fails when page and result files differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "explanation" / "kernels.md"
BEGIN, END = "<!-- tables: written by benchmarks/packed_page.py -->", "<!-- end of tables -->"
SHAPES = ([576, 576], [4096, 4096])
TOKENS = (0, 1, 8, 64, 512, 2048)
PEERS = ("bitsandbytes", "bitsandbytes, float32", "torchao", "optimum-quanto")


def section() -> str:
    """Return the tables as Markdown."""
    ops, steps, loads, decoded = (_read(name) for name in ("quant_ops", "qlora_step", "load_memory", "decode"))
    return "\n\n".join(
        [
            *(_steps(steps), _losses(_read("cross_entropy")), _decoded(decoded), _applied(_read("apply"))),
            *(_loads(loads), _operations(ops)),
        ]
    )


def _steps(result: dict[str, Any]) -> str:
    figures = result["figures"]
    lines = [
        "A QLoRA step on SmolLM2-135M, sequences of 256, float32, the same NF4 codes, beside peft + bitsandbytes:",
        "",
        "| batch | step | bitsandbytes | ratio | peak memory | bitsandbytes | ratio | largest difference of a loss |",
        "|---" * 8 + "|",
    ]
    for case in figures["cases"]:
        ours, theirs = case["bedstone"], case["bitsandbytes"]
        lines.append(
            f"| {case['batch_size']} | {ours['seconds']['median']:.3f} s | {theirs['seconds']['median']:.3f} s | {case['time_ratio']['median']:.3f} "
            f"| {_mib(ours['peak_bytes'])} | {_mib(theirs['peak_bytes'])} | {case['peak_ratio']:.3f} | {case['loss_difference']:.1e} |"
        )
    targets = figures["targets"]
    wanted = (
        f"Targets: time at most {targets['time_ratio']} times, memory at batch 1 at most {targets['peak_ratio_batch_1']} times, "
        f"losses of 20 steps equal to {targets['loss_difference']}."
    )
    return "\n".join([*lines, "", f"{wanted} {_circumstances(result)}"])


def _losses(result: dict[str, Any]) -> str:
    figures = result["figures"]
    who = list(figures["cases"][0]["seconds"])
    lines = [
        "The output head with its cross-entropy, forward and backward, float32; memory besides the gradients:",
        "",
        "| rows | columns | words | head trained | " + " | ".join(who) + " |",
        "|---" * (4 + len(who)) + "|",
    ]
    for case in figures["cases"]:
        cells = [f"{case['seconds'][w]['median']:.2f} s, {_mib(case['peak_bytes'][w])}" for w in who]
        size = [case["rows"], case["columns"], case["vocabulary"], "yes" if case["head_trained"] else "no"]
        lines.append("| " + " | ".join(map(str, [*size, *cells])) + " |")
    first, targets = figures["cases"][0], figures["targets"]
    told = (
        f"Memory is {first['memory_ratio']:.3f} times that of torch in the first row (target {targets['memory']:.3f}), the time "
        f"{' and '.join(format(case['time_ratio']['median'], '.2f') for case in figures['cases'])} times (target {targets['time']})."
    )
    return "\n".join([*lines, "", f"{told} {_circumstances(result)}"])


def _decoded(result: dict[str, Any]) -> str:
    figures = result["figures"]
    lines = [
        f"Greedy decoding with SmolLM2-135M in float32, {figures['new_tokens']} tokens, transformers' `generate`:",
        "",
        "| who | tokens a second | bedstone is so many times as fast | target |",
        "|---" * 4 + "|",
    ]
    for who, speed in figures["tokens_per_s"].items():
        ratio, target = figures["ratios"].get(who), figures["targets"].get(who)
        shown = (
            "" if ratio is None else f"{ratio['median']:.2f}" if figures["met"][who] else f"**{ratio['median']:.2f}**"
        )
        lines.append(f"| {who} | {speed['median']:.1f} | {shown} | {target or ''} |")
    return "\n".join([*lines, "", _circumstances(result)])


def _applied(result: dict[str, Any]) -> str:
    lines = [
        "What `kernels.apply` makes of it, which replaces norms alone on a CPU: times as fast as before.",
        "",
        "| | forward | forward and backward |",
        "|---" * 3 + "|",
    ]
    norms: dict[str, list[str]] = {}
    for case in result["figures"]["norm"]:
        of = f"a norm of 576 columns, {case['dtype']}, rows: {case['rows']}"
        norms.setdefault(of, []).append(f"{case['times_as_fast']['median']:.2f}")
    lines += [f"| {of} | {' | '.join(ratios)} |" for of, ratios in norms.items()]
    lines += [
        f"| decoding, {who} | {each['times_as_fast']['median']:.2f} |  |"
        for who, each in result["figures"]["decode"].items()
    ]
    return "\n".join([*lines, "", _circumstances(result)])


def _loads(result: dict[str, Any]) -> str:
    lines = [
        "Loading SmolLM2 as NF4, anonymous memory above the imported interpreter (largest, and when loaded):",
        "",
        "| dtype | who | peak | after | the model's own bytes |",
        "|---" * 5 + "|",
    ]
    for dtype, arms in result["figures"].items():
        if not isinstance(arms, dict):
            continue
        for who, arm in arms.items():
            peak, after = (arm[f"anonymous_{when}_bytes"]["median"] for when in ("peak", "after"))
            lines.append(f"| {dtype} | {who} | {_mib(peak)} | {_mib(after)} | {_mib(arm['model_bytes'])} |")
    return "\n".join([*lines, "", _circumstances(result)])


def _operations(result: dict[str, Any]) -> str:
    figures = result["figures"]
    missed = sum(not case.get("met", True) for case in figures["cases"])
    alike = [case["peers"][PEERS[1]]["ratio"]["median"] for case in figures["cases"] if PEERS[1] in case["peers"]]
    lines = [
        "Single operations in milliseconds, and how many times as long a peer takes: above 1 bedstone is faster. M is the number of tokens.",
        f"{missed} of {sum('met' in case for case in figures['cases'])} targets of time are missed, printed bold. {_circumstances(result)}",
        (
            f"Products of 4-bit weights in float32 on both sides: bedstone is at least as fast in {sum(r >= 1 for r in alike)} of {len(alike)}, at "
            f"worst {min(alike):.2f} times, at best {max(alike):.0f} times as fast."
        ),
        "",
        *(f"- {what}: {'yes' if holds else '**no**'}." for what, holds in figures["equal"].items()),
    ]
    parts = ["\n".join(lines)]
    parts += [_table(figures["cases"], shape) for shape in SHAPES]
    return "\n\n".join(parts)


def _table(cases: list[dict[str, Any]], shape: list[int]) -> str:
    lines = [
        f"{shape[0]} x {shape[1]}:",
        "",
        "| threads | weight | operation | M | dtype | ms | " + " | ".join(PEERS) + " |",
    ]
    lines.append("|---" * (6 + len(PEERS)) + "|")
    for case in cases:
        if case["shape"] != shape or case["tokens"] not in TOKENS:
            continue
        ratios = [_ratio(case, peer) for peer in PEERS]
        name = [case["threads"], case["scheme"], case["op"], case["tokens"] or "", case["dtype"]]
        lines.append("| " + " | ".join(map(str, [*name, f"{case['ours']['median']:.3g}", *ratios])) + " |")
    return "\n".join(lines)


def _ratio(case: dict[str, Any], peer: str) -> str:
    if peer not in case["peers"]:
        return ""
    ratio = f"{case['peers'][peer]['ratio']['median']:.2f}"
    return f"**{ratio}**" if peer == "bitsandbytes" and not case.get("met", True) else ratio


def _mib(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"


def _circumstances(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if name != "bedstone")
    return f"{result['cpu']}, {result['cores']} cores, load {result['load'][0]}, {versions}."


def _read(name: str) -> dict[str, Any]:
    return json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="change the page")
    if not parser.parse_args().write:
        sys.stdout.write(section() + "\n")
        return
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{section()}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
