"""The CPU kernels beside bitsandbytes, torch, fbgemm and ggml: quantize, dequantize, products and the gradient of the input.

    python benchmarks/cpu_kernels.py [--seconds 0.6] [--quick --folder FOLDER] [--judge]

Each shape and each number of threads has a process of its own, its threads bound to cores. In it all contestants of a case take turns.
1 thread: median process CPU time; 2 threads: best wall time, median beside it. For up to 8 rows of x everybody's weight goes round through
160 MB of copies, so that these are figures of memory, not of a cache. Errors stand beside times, numerics classes apart from each other.
Ends with exit code 1 when a target is missed.

`cpu_kernel_cases.py` says what is compared, `cpu_kernel_ours.py` and `cpu_kernel_peers.py` who takes part, `cpu_kernel_clock.py` how times are
taken, `cpu_kernel_targets.py` what must be reached; `build_ggml.py` builds ggml, without which its rows are left out, which is said.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import build_ggml
import record

CHILD = Path(__file__).with_name("cpu_kernel_child.py")
SHAPES, QUICK_SHAPES = ((4096, 4096), (11008, 4096)), ((128, 256),)
NOT_BUILT = "ggml is left out: --quick builds nothing, and nobody has built it."
PACKAGES = ("torch", "bitsandbytes")
BOUND = {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores"}
NOT_HERE = (
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
)  # they cost short kernels 10 to 15 %, and are the Makefile's, not a user's


def run_child(shape: tuple[int, int], threads: int, library: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a fresh process finds with a shape and this number of threads; each case is shown as it comes."""
    environment = {name: value for name, value in os.environ.items() if name not in NOT_HERE}
    environment |= BOUND | {
        name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    words = [sys.executable, str(CHILD), *map(str, shape), library, str(options.seconds)]
    found: dict[str, Any] = {"cases": []}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            ((kind, value),) = json.loads(line).items()
            if kind == "case":
                found["cases"].append(value)
                show(value)
            else:
                found[kind] = value
    if process.returncode:
        raise RuntimeError(f"the process with {threads} threads and {shape} ended with {process.returncode}")
    return found


def show(case: dict[str, Any]) -> None:
    print(
        f"{case['threads']}t {case['shape'][0]}x{case['shape'][1]} {case['op']} {case['scheme']} {case['dtype']} M={case['inputs']}"
    )
    for name, each in sorted(case["contestants"].items(), key=lambda item: item[1]["ms"]):
        error = "" if each["error"] is None else f"error {each['error']:.1e}"
        unsteady = "" if each["steady"] else "  UNSTEADY"
        print(
            f"    {name:<32} {each['ms']:>9.3f} ms (median {each['median']:.3f})  {error} {each['numerics']}{unsteady}",
            flush=True,
        )


def ggml() -> tuple[str, str]:
    """Return where ggml is, built if need be; or nothing and why."""
    try:
        return str(build_ggml.build()), ""
    except RuntimeError as error:
        return "", f"ggml is left out: it could not be built, {error}."


def judged(processes: list[dict[str, Any]], cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what became of every target, and how many of those that are promised were missed; tells both."""
    from cpu_kernel_targets import verdicts

    found = []
    for process in processes:
        of_it = [each for each in cases if all(each[key] == process[key] for key in ("shape", "threads"))]
        read = process["read_gb_per_s"]
        found += verdicts(of_it, read and read["best"])
    tell(found)
    missed = sum(each["met"] is False and not each["stretch"] for each in found)
    print(f"\n{missed} of {sum(not each['stretch'] for each in found)} targets missed")
    return {"targets": found, "missed": missed}


def judge_again(path: Path) -> None:
    """Hold figures that were recorded against the targets as they are now; what was measured stays as it is."""
    result = json.loads(path.read_text(encoding="utf-8"))
    figures = result["figures"]
    figures.update(judged(figures["processes"], figures["cases"]))
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def tell(found: list[dict[str, Any]]) -> None:
    print("\ntargets; a value is the peer's time over ours unless it says otherwise")
    for each in found:
        size = f"{each['shape'][0]}x{each['shape'][1]} {each['threads']}t"
        name = f"{each['scheme']} {each['op']} M={each['inputs']} {each['numerics']} {each['kind']} {each['implementation']} {each['peer']}"
        value = "-" if each["value"] is None else f"{each['value']:.3g}"
        state = {True: "met", False: "MISSED", None: "not measured"}[each["met"]] + " (stretch)" * each["stretch"]
        print(f"  {size:<14} {name:<75} {value:>8} of {each['least']:.3g}  {state} {each.get('why', '')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small shape, one thread, ggml only if it is built")
    parser.add_argument(
        "--seconds", type=float, default=0.6, help="about so long each contestant of a case is measured"
    )
    parser.add_argument("--folder", type=Path, default=record.RESULTS, help="where the result file goes")
    parser.add_argument(
        "--judge", action="store_true", help="measure nothing: hold the result file against the targets"
    )
    options = parser.parse_args()
    if options.judge:
        judge_again(options.folder / "cpu_kernels.json")
        return
    if options.quick and options.folder == record.RESULTS:
        parser.error("--quick measures nothing worth keeping: name another --folder")
    library, why = (str(build_ggml.library() or ""), NOT_BUILT) if options.quick else ggml()
    print(f"ggml: {library or why}")
    runs = [
        run_child(shape, threads, library, options)
        for shape in (QUICK_SHAPES if options.quick else SHAPES)
        for threads in ((1,) if options.quick else (1, 2))
    ]
    processes = [run["machine"] | run["end"] for run in runs]
    cases = [case for run in runs for case in run["cases"]]
    verdict = judged(processes, cases)
    identical = all(same for run in runs for same in run["machine"]["identical_bits"].values())
    print(f"4-bit codes, scales and values are those of bitsandbytes: {'yes' if identical else 'NO'}")
    figures = {"ggml": runs[0]["machine"]["ggml"] or why, "bound": BOUND, "processes": processes, **verdict}
    figures |= {"identical_bits": identical, "cases": cases}
    record.write("cpu_kernels", figures, packages=PACKAGES, folder=options.folder)
    sys.exit(not identical or (bool(verdict["missed"]) and not options.quick))


if __name__ == "__main__":
    main()
