"""The tables that `cpu_kernel_page.py` puts together: targets, times with their errors, and where a peer is ahead."""

from __future__ import annotations

from typing import Any

CLASSES = ("exact", "rounded", "approximate")
KIN = {
    "nf4": ("ggml Q4", "ggml IQ4", "aten int4pack", "bitsandbytes", "torch"),
    "int8": ("ggml Q8", "aten int8pack", "torch"),
    "ternary": ("ggml TQ2", "torch fbgemm", "torch fp32"),
}
"""With whom a format's products are compared: formats of as many bits, and torch."""
BUFFER = "dequantize into a buffer"
OPERATIONS = ("quantize", BUFFER, "dequantize")


def kept(targets: list[dict[str, Any]], numerics: str) -> tuple[int, int]:
    """Return how many targets of a class are met, and how many there are."""
    mine = [each for each in targets if each["numerics"] == numerics and not each["stretch"]]
    return sum(each["met"] is True for each in mine), len(mine)


def targets(found: list[dict[str, Any]]) -> str:
    """Return the promises and what became of them; missed ones are bold."""
    rows: dict[tuple[Any, ...], dict[tuple[int, str], dict[str, Any]]] = {}
    for each in found:
        who = each["implementation"] or each["numerics"]
        name = f"{each['scheme']} {each['op']}" + f", M = {each['inputs']}" * (each["inputs"] > 0)
        key = (name + " (stretch)" * each["stretch"], who, each["kind"], _beside(each))
        rows.setdefault(key, {})[each["threads"], "x".join(map(str, each["shape"]))] = each
    columns = sorted(
        {place for row in rows.values() for place in row}, key=lambda place: (place[1] != "4096x4096", place)
    )
    head = [f"{shape}, {threads}t" for threads, shape in columns]
    lines = [_head("operation", "numerics", "beside", "at least", *head)]
    for (name, who, kind, beside), row in rows.items():
        least = sorted({_least(each["least"], kind) for each in row.values()}, reverse=True)
        cells = [_value(row[place]) if place in row else "" for place in columns]
        lines.append(_row(name, who, beside, " / ".join(least), *cells))
    told = (
        "Targets: how many times as long a peer takes, unless it says otherwise; where several are named, the fastest counts. Bold is missed, a dash not "
        "measured. In brackets what the other numerics classes reach, which decides nothing. `reference` is plain torch, without the compiled library."
    )
    return "\n".join([told, "", *lines])


def _beside(each: dict[str, Any]) -> str:
    if each["kind"] == "read":
        return "the speed that memory is read at"
    if each["kind"] == "memory":
        return "scratch, at most"
    peers = " or ".join(each["beside"])
    return f"error of {peers}" if each["kind"] == "error" else peers


def _least(value: float, kind: str) -> str:
    return f"{value / 2**20:.3g} MiB" if kind == "memory" else f"{value:.0%}" if kind == "read" else f"{value:g}"


def _value(each: dict[str, Any]) -> str:
    if each["value"] is None:
        return "-" if each["met"] is None else f"**none**{_others(each)}"
    shown = _measure(each["value"], each["kind"])
    return (shown if each["met"] else f"**{shown}**") + _others(each)


def _others(each: dict[str, Any]) -> str:
    told = ", ".join(f"{name} {_measure(value, each['kind'])}" for name, value in each["others"].items())
    return f" ({told})" * bool(told)


def _measure(value: float, kind: str) -> str:
    if kind in ("memory", "read"):
        return _least(value, kind)
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def products(cases: list[dict[str, Any]]) -> str:
    """Return the times of all products of a shape, ours by numerics, then the peers."""
    found = [case for case in cases if case["op"] == "linear"]
    inputs = sorted({case["inputs"] for case in found})
    head = [f"M = {count}, {'ms, ' if not i else ''}1t / 2t" for i, count in enumerate(inputs)]
    lines = [f"Products, {_shape(cases)}:", "", _head("who", "numerics", *head, "largest error")]
    for name in _sorted_by_class({name: each for case in found for name, each in case["contestants"].items()}):
        mine = [case["contestants"].get(name) for case in found]
        numerics = next(each["numerics"] for each in mine if each)
        cells = [_times([case for case in found if case["inputs"] == count], name) for count in inputs]
        error = max(each["error"] for each in mine if each)
        lines.append(_row(name, numerics, *cells, f"{error:.0e}"))
    return "\n".join(lines)


def storing(cases: list[dict[str, Any]]) -> str:
    """Return the times of quantizing and dequantizing a weight of a shape."""
    found = [case for case in cases if case["op"] in OPERATIONS]
    dtypes = list(dict.fromkeys(case["dtype"] for case in found))
    lines = [
        f"Quantize and dequantize, {_shape(cases)}, ms, 1t / 2t:",
        "",
        _head("operation", "format", "who", *dtypes),
    ]
    for op in OPERATIONS:
        for scheme in dict.fromkeys(case["scheme"] for case in found):
            mine = [case for case in found if (case["op"], case["scheme"]) == (op, scheme)]
            for who in dict.fromkeys(name for case in mine for name in case["contestants"]):
                cells = [_times([case for case in mine if case["dtype"] == dtype], who) for dtype in dtypes]
                lines.append(_row(op, scheme, who.replace(f" {scheme} ", " "), *cells))
    return "\n".join(lines)


def gradients(cases: list[dict[str, Any]]) -> str:
    """Return the times of the gradient of the input of a frozen weight, and the memory that it took."""
    found = [case for case in cases if case["op"] == "input grad"]
    inputs = sorted({case["inputs"] for case in found})
    head = [f"M = {count}, 1t / 2t" for count in inputs]
    lines = [f"Gradient of the input, nf4, {_shape(cases)}, ms; memory besides the result:", ""]
    lines.append(_head("who", "numerics", *head, "memory"))
    for name in found[0]["contestants"]:
        mine = [case["contestants"][name] for case in found]
        cells = [_times([case for case in found if case["inputs"] == count], name) for count in inputs]
        peak = max(max(each["peak_bytes"] or 0, each["workspace"] or 0) for each in mine)
        lines.append(_row(name, mine[0]["numerics"], *cells, f"{peak / 2**20:.1f} MiB"))
    return "\n".join(lines)


def ahead(cases: list[dict[str, Any]]) -> str:
    """Return where a peer multiplies faster than ours of a class, and how many times."""
    lines = [f"Where a peer is ahead, {_shape(cases)} (how many times as fast, and its error):", ""]
    lines.append(_head("format", "numerics", "M", "threads", "ahead of the fastest of ours"))
    every = [(scheme, case, name) for scheme in KIN for case in cases if case["op"] == "linear" for name in CLASSES]
    rows = [
        (scheme, name, case["inputs"], case["threads"], _faster(case, scheme, name)) for scheme, case, name in every
    ]
    return "\n".join([*lines, *(_row(*row) for row in rows if row[-1])])


def overhead(figures: dict[str, Any]) -> str:
    """Return what asking the registry costs a call."""
    lines = [
        f"What asking costs a call, beside {figures['kernel']} ({figures['kernel_ns'] / 1e6:.2f} ms), one thread:",
        "",
    ]
    lines.append(_head("call", "more than without", "at most", "of a kernel"))
    for case in figures["cases"]:
        ns = case["unit"] == "ns"
        shown = f"{case['median'] / 1e3:.2f} µs" if ns else f"{case['median']:.2f} times"
        target = "" if case["target"] is None else f"{case['target'] / 1e3:g} µs" if ns else f"{case['target']:g} times"
        cell = shown if case["met"] else f"**{shown}**"
        lines.append(_row(case["what"], cell, target, f"{case['percent_of_kernel']:.2f} %"))
    return "\n".join(lines)


def _faster(case: dict[str, Any], scheme: str, numerics: str) -> str:
    everybody = case["contestants"]
    start = f"bedstone {scheme} "
    ours = [each["ms"] for name, each in everybody.items() if name.startswith(start) and each["numerics"] == numerics]
    best = min(ours, default=0)
    peers = {name: each for name, each in everybody.items() if name.startswith(KIN[scheme]) and each["ms"] < best}
    return ", ".join(
        f"{name} {best / each['ms']:.2f} ({each['error']:.0e})"
        for name, each in sorted(peers.items(), key=lambda item: item[1]["ms"])
    )


def _sorted_by_class(everybody: dict[str, dict[str, Any]]) -> list[str]:
    order = {name: i for i, name in enumerate((*CLASSES, ""))}
    return sorted(everybody, key=lambda name: order[everybody[name]["numerics"]])


def _times(cases: list[dict[str, Any]], name: str) -> str:
    by_threads = sorted(cases, key=lambda case: case["threads"])
    return " / ".join(_ms(case["contestants"][name]) if name in case["contestants"] else "-" for case in by_threads)


def _ms(each: dict[str, Any]) -> str:
    return f"{each['ms']:#.3g}".rstrip(".") + " (unsteady)" * (not each["steady"])


def _shape(cases: list[dict[str, Any]]) -> str:
    return " x ".join(map(str, cases[0]["shape"]))


def _head(*names: str) -> str:
    return _row(*names) + "\n" + "|---" * len(names) + "|"


def _row(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
