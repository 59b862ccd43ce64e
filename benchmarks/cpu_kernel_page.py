"""The section on CPU kernels of docs/explanation/kernels.md, written from the result files that it quotes.

    python benchmarks/cpu_kernel_page.py            # print it
    python benchmarks/cpu_kernel_page.py --write    # put it between the markers of the page

Numerics classes stand in rows or columns of their own; no sentence adds them up. A test fails when page and result files differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cpu_kernel_tables as tables

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "explanation" / "kernels.md"
BEGIN, END = "<!-- cpu kernels: written by benchmarks/cpu_kernel_page.py -->", "<!-- end of cpu kernels -->"


def section(folder: Path) -> str:
    """Return the section as Markdown, from the result files of a folder."""
    kernels, peak, registry = (
        folder / f"{name}.json" for name in ("cpu_kernels", "instruction_peak", "registry_overhead")
    )
    parts = _kernels(_read(kernels)) if kernels.is_file() else ["Not measured yet: `python benchmarks/cpu_kernels.py`."]
    if peak.is_file():
        parts.append(_peak(_read(peak)))
    if registry.is_file():
        result = _read(registry)
        parts.append(f"{tables.overhead(result['figures'])}\n\n{_machine(result)}")
    return "\n\n".join(parts)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _kernels(result: dict[str, Any]) -> list[str]:
    figures = result["figures"]
    parts = [_introduction(result), tables.targets(figures["targets"])]
    for shape in _shapes(figures):
        cases = [case for case in figures["cases"] if case["shape"] == shape]
        parts += [tables.products(cases), tables.storing(cases), tables.gradients(cases), tables.ahead(cases)]
    return parts


def _peak(result: dict[str, Any]) -> str:
    figures = result["figures"]
    size = " x ".join(str(each) for each in figures["shape"])
    reached = ", ".join(f"{name} {share['median']:.0%}" for name, share in figures["cases"].items())
    return (
        f"Of the peak of the instructions that multiply and add, one thread, {size}: {reached} "
        f"({figures['stretch']:.0%} was hoped for). {_machine(result)}"
    )


def _machine(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if name != "bedstone")
    return f"{result['cpu']}, {result['cores']} cores, load {result['load'][0]}, {versions}."


def _shapes(figures: dict[str, Any]) -> list[list[int]]:
    found: list[list[int]] = []
    for case in figures["cases"]:
        if case["shape"] not in found:
            found.append(case["shape"])
    return found


def _introduction(result: dict[str, Any]) -> str:
    figures = result["figures"]
    read = ", ".join(
        f"{each['read_gb_per_s']['best']:.1f} GB/s with {each['threads']} thread{'s' * (each['threads'] > 1)}"
        for each in figures["processes"][:2]
        if each["read_gb_per_s"]
    )
    ggml = f"ggml {figures['ggml']}" if figures["ggml"][:1].isdigit() else figures["ggml"].removesuffix(".")
    same = "are" if figures["identical_bits"] else "are **not**"
    count = {name: tables.kept(figures["targets"], name) for name in tables.CLASSES}
    lines = [
        f"{_machine(result)} {ggml}." + (f" It reads memory at {read}." if read else ""),
        (
            "All contestants of a table take turns in one process whose threads are bound to cores. With 1 thread a figure is the median of the CPU time, "
            "with 2 the best wall time. For up to 8 rows of x everybody's weight goes round through 160 MB of copies."
        ),
        (
            "Errors of ours and of bitsandbytes' NF4 are against the exact product with the same dequantized weight, those of other formats against the "
            "product with the float32 weight."
        ),
        f"4-bit codes, scales and values {same} those of bitsandbytes, bit by bit.",
        "Targets met: " + ", ".join(f"{met} of {of} {name}" for name, (met, of) in count.items() if of) + ".",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="change the page")
    parser.add_argument("--folder", type=Path, default=HERE / "results", help="another folder of result files")
    options = parser.parse_args()
    if not options.write:
        sys.stdout.write(section(options.folder) + "\n")
        return
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{section(options.folder)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
