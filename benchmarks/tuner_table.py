"""Which peft tuner trains, saves, merges and compiles on which packed base: ours beside bitsandbytes and torchao.

    python -m pip install -c constraints.txt torchao==0.18.0
    python benchmarks/tuner_table.py            # look, and write results/tuner_table.json
    python benchmarks/tuner_table.py --quote    # print the tables of that file
    python benchmarks/tuner_table.py --write    # put them into docs/explanation/tuners.md

It measures no time. Every base runs in a process of its own, which is started again behind a cell that ends it. A cell says "ok", the
class of the error, "lost" (the merged layers compute what they did without the adapter, and nobody was told), "wrong" (further from
the adapted layers than the base is), and for a merge the relative error of the change that arrived in the weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import record

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "explanation" / "tuners.md"
BEGIN, END = "<!-- tables: written by benchmarks/tuner_table.py -->", "<!-- end of tables -->"
ASPECTS = ("train", "save", "merge", "exact", "compile")
FINE = ("ok", "no weights", "not ours")


def look(base: str, tuners: list[str]) -> list[dict[str, Any]]:
    """Return the cells of one base."""
    cells: list[dict[str, Any]] = []
    while len(cells) < len(tuners) * len(ASPECTS):
        known = json.dumps([cell["cell"] for cell in cells])
        lines, status = _child(base, known)
        cells += [line for line in lines if "cell" in line]
        if status == 0:
            break
        begun = [line["begin"] for line in lines if "begin" in line]
        if not begun:
            raise SystemExit(f"The child for {base} ended with {status} before its first cell.")
        cells += _crashed(begun[-1], status)
    return cells


def _crashed(cell: list[str], status: int) -> list[dict[str, Any]]:
    """The cell that ended the process; without training there are no others of this tuner."""
    tuner, aspect = cell
    lost = ASPECTS[1:] if aspect == "train" else ()
    unreached = [{"cell": [tuner, other], "outcome": "not reached"} for other in lost]
    return [{"cell": cell, "outcome": "crash", "status": status}, *unreached]


def _child(*arguments: str) -> tuple[list[dict[str, Any]], int]:
    command = [sys.executable, str(HERE / "tuner_cells.py"), *arguments]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")], child.returncode


def measure() -> None:
    import tuner_bases
    import tuner_cells

    tuners, bases = list(tuner_cells.TUNERS), {}
    for base in tuner_bases.BASES:
        bases[base] = look(base, tuners)
        print(f"{base}: {sum(cell['outcome'] in FINE for cell in bases[base])} of {len(bases[base])} cells are fine")
    costs, _ = _child("--cost")
    figures = {"ours": list(tuner_bases.OURS), "tuners": tuners, "bases": bases, "requantized": costs}
    record.write("tuner_table", figures, packages=("torch", "peft", "transformers", "bitsandbytes", "torchao"))


# --- the page ------------------------------------------------------------------------------------


def section() -> str:
    """Return the tables as Markdown."""
    result = json.loads((HERE / "results" / "tuner_table.json").read_text(encoding="utf-8"))
    figures, versions = result["figures"], result["versions"]
    ours, others = figures["ours"], [base for base in figures["bases"] if base not in figures["ours"]]
    exact = [
        c["error"] for base in ours for c in figures["bases"][base] if c["cell"][1] == "exact" and c["outcome"] == "ok"
    ]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "bedstone")
    return "\n".join(
        [
            "On bedstone's packed layers:",
            "",
            *_table(figures, ours),
            "",
            f"`adapters.merge` on the same models: relative error of the output at most {max(exact):.1e}.",
            "",
            "On dense layers and on the peers':",
            "",
            *_table(figures, others),
            "",
            *_excluded(figures, others),
            f"Versions: {listed}. On a CPU ({result['cpu']}: bitsandbytes computes otherwise on one without AVX-512); nothing here was run on a GPU.",
            "",
            "What a merge into packed weights keeps of a LoRA, by the size of its change against the weights; `error` in brackets:",
            "",
            *_cost_table(figures["requantized"]),
        ]
    )


def _table(figures: dict[str, Any], bases: list[str]) -> list[str]:
    shown = [base for base in bases if not _cannot_pack(figures["bases"][base])]
    rows = [f"| tuner | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
    for tuner in figures["tuners"]:
        texts = [_text([cell for cell in figures["bases"][base] if cell["cell"][0] == tuner]) for base in shown]
        rows.append(f"| {tuner} | {' | '.join(texts)} |")
    return rows


def _text(cells: list[dict[str, Any]]) -> str:
    wrong = [cell for cell in cells if cell["outcome"] not in (*FINE, "not reached")]
    if not wrong:
        merge = next(cell for cell in cells if cell["cell"][1] == "merge")
        return f"ok, {merge['error']:.2g}" if "error" in merge else "ok"
    return "; ".join(f"{cell['cell'][1]}: **{cell['outcome']}**" for cell in wrong)


def _cannot_pack(cells: list[dict[str, Any]]) -> bool:
    """Whether not even one tuner trains: then the base itself does not run here."""
    return not any(cell["outcome"] == "ok" for cell in cells if cell["cell"][1] == "train")


def _excluded(figures: dict[str, Any], bases: list[str]) -> list[str]:
    out = [base for base in bases if _cannot_pack(figures["bases"][base])]
    said = {base: next(c for c in figures["bases"][base] if c["cell"][1] == "train") for base in out}
    lines = [f"{base} does not run here: {c['outcome']}, {c.get('message', '')}" for base, c in said.items()]
    return [text for line in lines for text in (line, "")]


def _cost_table(costs: list[dict[str, Any]]) -> list[str]:
    sizes = sorted({cost["size"] for cost in costs})
    rows = [f"| scheme | {' | '.join(f'{size:.0%}' for size in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    for scheme in dict.fromkeys(cost["scheme"] for cost in costs):
        found = {cost["size"]: cost for cost in costs if cost["scheme"] == scheme}
        texts = [f"{found[size]['kept']:.0%} ({found[size]['error']:.2g})" for size in sizes]
        rows.append(f"| {scheme} | {' | '.join(texts)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quote", action="store_true", help="print the tables; measures nothing")
    parser.add_argument("--write", action="store_true", help="change docs/explanation/tuners.md; measures nothing")
    chosen = parser.parse_args()
    if chosen.quote:
        print(section())
    elif chosen.write:
        text = PAGE.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{section()}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
    else:
        measure()


if __name__ == "__main__":
    main()
