"""The tables of docs/explanation/quantization-error.md, written from the result file so that the page can say nothing else.

    python benchmarks/quant_error_page.py            # print them
    python benchmarks/quant_error_page.py --write    # put them between the markers of the page

A test fails when page and result file differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "explanation" / "quantization-error.md"
MARKS = {
    name: (f"<!-- {name}: written by benchmarks/quant_error_page.py -->", f"<!-- end of {name} -->")
    for name in ("weights", "predictions")
}


def tables() -> dict[str, str]:
    """Return the two tables as Markdown, by the name of their place on the page."""
    result = json.loads((HERE / "results" / "quant_error.json").read_text(encoding="utf-8"))
    measured = result["figures"]
    return {
        "weights": weight_table(measured["weights"], result),
        "predictions": prediction_tables(measured["predictions"]),
    }


def weight_table(weights: dict[str, Any], result: dict[str, Any]) -> str:
    rows = [
        f"| {name_of(row)} | {row['bits_per_weight']:.3f} | {row['error']:.2%} | {row['median']:.2%} | {row['worst']:.2%} |"
        for row in weights["rows"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join(
        [
            "| quantizer | bits a weight | error | median layer | worst layer |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"{weights['layers']} linear layers of {weights['model']}; {versions}; Python {result['python']}, {result['cpu']}.",
            *notes(weights["rows"]),
        ]
    )


def prediction_tables(predictions: dict[str, Any]) -> str:
    """Two tables with a column a text: divergence, and the two measures that everybody knows."""
    names = [text["name"] for text in predictions["texts"]]
    dense = [f"100.0%, {value:.2f}" for value in predictions["reference_perplexity"]]
    counted = "; ".join(f"{text['name']}, {text['tokens']:,} tokens" for text in predictions["texts"])
    formats = ", ".join(f"{count} {name}" for name, count in predictions["gguf"].items())
    note = (
        f"{predictions['model']}, whose GGUF file keeps its tensors as {formats}: **these weights were quantized before**. "
        f"Texts: {counted}."
    )
    return "\n".join(
        [
            *columns(["KL in nats a token", *names], predictions["rows"], divergence),
            "",
            *columns(
                ["same first choice, perplexity", *names], predictions["rows"], familiar, first=["float32", *dense]
            ),
            "",
            note,
        ]
    )


def columns(head: list[str], rows: list[dict[str, Any]], cell: Any, first: Sequence[str] = ()) -> list[str]:
    """Return a table with a row a quantizer and a column a text."""
    lines = [head, ["---"] * len(head), *([first] if first else [])]
    lines += [[name_of(row), *map(cell, row["texts"])] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def name_of(row: dict[str, Any]) -> str:
    return f"{row['package']} `{row['scheme']}`, {row['options']}"


def divergence(text: dict[str, float]) -> str:
    return f"{text['kl']:.4f} ± {text['kl_standard_error']:.4f}"


def familiar(text: dict[str, float]) -> str:
    return f"{text['agreement']:.1%}, {text['perplexity']:,.2f}"


def notes(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{row['package']} `{row['scheme']}`: {row['note']}." for row in rows if row["note"]]


def write() -> None:
    """Put the tables into the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables().items():
        begin, end = MARKS[name]
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.relative_to(HERE.parent)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="change the page")
    if parser.parse_args().write:
        write()
    else:
        sys.stdout.write("\n\n".join(tables().values()) + "\n")


if __name__ == "__main__":
    main()
