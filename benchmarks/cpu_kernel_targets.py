"""What `cpu_kernels.py` holds against the figures: the least that each must reach, for which numerics, beside whom.

A target is about implementations of one numerics class. What the other classes reach stands beside it in the result file, and decides
nothing: a rounded product does not win for an exact one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

CLASSES = ("exact", "rounded", "approximate")
MIB = 2**20
Kind = Literal["time", "read", "error", "memory"]


@dataclass(frozen=True)
class Target:
    """A promise about one case.

    Attributes:
        op: Of the case.
        scheme: Of ours.
        numerics: The class that it is about.
        least: What must be reached with one and with two threads: the peer's time over ours, of `read` the part of the speed that memory
            is read at, of `error` the peer's error over ours; of `memory` the most bytes. Nothing: no promise for this number of threads.
        peers: The fastest of them counts.
        inputs: Rows of x.
        kind: What is compared.
        implementation: Ours, by name; empty for the fastest but plain torch.
        stretch: Whether it is hoped for rather than promised.
    """

    op: str
    scheme: str
    numerics: str
    least: tuple[float | None, float | None]
    peers: tuple[str, ...] = ()
    inputs: int = 0
    kind: Kind = "time"
    implementation: str = ""
    stretch: bool = False


BNB, API, TORCH, FBGEMM = "bitsandbytes nf4", "bitsandbytes API", "torch fp32", "torch fbgemm dynamic int8"
Q4_K, FOUR = "ggml Q4_K repack", ("ggml Q4_0 repack", "ggml IQ4_NL repack")
ALL_FOUR = (Q4_K, *FOUR)
BUFFER = "dequantize into a buffer"


def _both(least: float) -> tuple[float, float]:
    return least, least


def _products(scheme: str, numerics: str, inputs: int, *wanted: tuple[tuple[str, ...], float]) -> list[Target]:
    return [Target("linear", scheme, numerics, _both(least), peers, inputs) for peers, least in wanted]


TARGETS = [
    Target("quantize", "nf4", "exact", _both(50), (API,)),
    Target("quantize", "nf4", "exact", (2, None), ("ggml Q4_0",)),
    Target(BUFFER, "nf4", "exact", (1.8, 1.4), ("bitsandbytes C kernel",)),
    Target(BUFFER, "nf4", "exact", _both(10), (f"{API}, fresh",)),
    Target("dequantize", "nf4", "exact", _both(4.5), (API,)),
    Target("quantize", "int8", "exact", _both(20), ("torch",)),
    Target(BUFFER, "int8", "exact", _both(8), ("torch, fresh",)),
    Target("quantize", "ternary", "exact", (6, None), ("ggml TQ2_0",)),
    Target(BUFFER, "ternary", "exact", (1.5, None), ("ggml TQ2_0",)),
    *_products("nf4", "rounded", 1, (ALL_FOUR, 1.0), ((BNB,), 40)),
    Target("linear", "nf4", "rounded", (None, 0.75), inputs=1, kind="read"),
    *_products("nf4", "approximate", 1, (ALL_FOUR, 1.08)),
    *_products("int8", "rounded", 1, (("ggml Q8_0",), 1.03), ((FBGEMM,), 0.9)),
    Target("linear", "int8", "rounded", _both(500), (FBGEMM,), 1, "error"),
    *_products("ternary", "approximate", 1, (("ggml TQ2_0",), 1.4)),
    Target("linear", "ternary", "approximate", (None, 0.9), inputs=1, kind="read"),
    *_products("nf4", "rounded", 8, (ALL_FOUR, 1.05), (("aten int4pack bf16",), 1.7), ((BNB,), 15)),
    *_products("nf4", "rounded", 64, ((Q4_K,), 1.0), (FOUR, 1.2), ((TORCH,), 1.3), ((BNB,), 3)),
    *_products("nf4", "rounded", 512, ((Q4_K,), 1.0), ((TORCH,), 1.1), ((BNB,), 1.4)),
    *_products("ternary", "approximate", 8, (("ggml TQ2_0",), 1.3), ((FBGEMM,), 0.9), ((TORCH,), 1.8)),
    *_products("ternary", "approximate", 64, (("ggml TQ2_0",), 1.3), ((FBGEMM,), 1.0), ((TORCH,), 1.8)),
    *_products("ternary", "approximate", 512, (("ggml TQ2_0",), 1.3), ((FBGEMM,), 1.0), ((TORCH,), 1.8)),
    *(
        Target("input grad", "nf4", numerics, least, (BNB,), inputs)
        for numerics in ("exact", "rounded")
        for inputs, least in ((8, (5, 4)), (64, (2.3, 2)), (512, (1.2, 1.2)))
    ),
    *(
        Target("input grad", "nf4", numerics, _both(4 * MIB), inputs=inputs, kind="memory")
        for numerics in ("exact", "rounded")
        for inputs in (8, 64, 512)
    ),
    # Without the compiled library: plain torch, never behind bitsandbytes.
    Target("quantize", "nf4", "exact", _both(1), (API,), implementation="reference"),
    Target("dequantize", "nf4", "exact", _both(1), (API,), implementation="reference"),
    *(
        Target(op, "nf4", "exact", _both(1), (BNB,), inputs, implementation="reference")
        for op, most in (("linear", (1, 8, 64, 512)), ("input grad", (8, 64, 512)))
        for inputs in most
    ),
    *(Target("linear", "nf4", "approximate", _both(1), (FBGEMM,), inputs, stretch=True) for inputs in (8, 64, 512)),
]


def verdicts(cases: list[dict[str, Any]], read: float | None) -> list[dict[str, Any]]:
    """Return what became of every target in the cases of one process.

    Args:
        cases: With one shape and one number of threads.
        read: Bytes a second that memory is read at, in GB; nothing where that was not measured.
    """
    threads = cases[0]["threads"]
    wanted = [(target, target.least[threads > 1]) for target in TARGETS]
    return [_verdict(target, least, cases, read) for target, least in wanted if least is not None]


def _verdict(target: Target, least: float, cases: list[dict[str, Any]], read: float | None) -> dict[str, Any]:
    case = next(each for each in cases if _is_of(each, target))
    values = {name: _reached(target, case, name, read) for name in CLASSES}
    value, who = values[target.numerics]
    peer = _fastest(case, target.peers) if target.peers else ""
    said = {
        name: getattr(target, name)
        for name in ("op", "scheme", "inputs", "numerics", "kind", "implementation", "stretch")
    }
    said |= {"shape": case["shape"], "threads": case["threads"], "beside": target.peers, "least": least}
    said |= {"ours": who, "peer": peer, "value": value}
    said["others"] = {name: each[0] for name, each in values.items() if name != target.numerics and each[0] is not None}
    if not who:
        return said | {"met": False, "why": f"no implementation is {target.numerics}"}
    if value is None:
        return said | {"met": None, "why": "what it is compared with was not measured"}
    return said | {"met": value <= least if target.kind == "memory" else value >= least}


def _is_of(case: dict[str, Any], target: Target) -> bool:
    same = (case["op"], case["inputs"], case["dtype"]) == (target.op, target.inputs, "float32")
    return same and case["scheme"] in ("", target.scheme)


def _reached(target: Target, case: dict[str, Any], numerics: str, read: float | None) -> tuple[float | None, str]:
    """What the fastest implementation of a class reaches, and its name; nothing where there is none."""
    who = _fastest(case, _of_ours(target, case, numerics))
    if not who:
        return None, ""
    mine, peer = case["contestants"][who], _fastest(case, target.peers)
    if target.kind == "memory":
        return max(mine["workspace"], mine["peak_bytes"] or 0), who  # what it states, and what was seen
    if target.kind == "read":
        return (mine["weight_bytes"] / mine["ms"] / 1e6 / read if read else None), who
    if not peer:
        return None, who
    theirs = case["contestants"][peer]
    key = "error" if target.kind == "error" else "ms"
    return theirs[key] / max(mine[key], 1e-12), who


def _of_ours(target: Target, case: dict[str, Any], numerics: str) -> list[str]:
    start = f"bedstone {target.scheme} "
    mine = [
        name for name, each in case["contestants"].items() if name.startswith(start) and each["numerics"] == numerics
    ]
    if target.implementation:
        return [name for name in mine if name == start + target.implementation]
    return [name for name in mine if not name.endswith(" reference")]


def _fastest(case: dict[str, Any], names: tuple[str, ...] | list[str]) -> str:
    there = [name for name in names if name in case["contestants"]]
    return min(there, key=lambda name: case["contestants"][name]["ms"], default="")
