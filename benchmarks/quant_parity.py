"""How many codes, scales and values of ours are not those of bitsandbytes; and what nested scales cost and gain.

Codes and scales are compared by their bits. Values are compared with its torch formula, which is the same on every CPU, and by their
bits with its compiled unpacking, which with AVX-512 has no -0 of FP4 and no subnormal bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch

import bedstone as bs
from bedstone import quant
from bedstone.kernels import layouts

COUNT = 2**18
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)


def kinds(code: str) -> dict[str, torch.Tensor]:
    """Return weights by what is special about their blocks."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(COUNT, generator=generator)
    table = layouts.code_table(code, torch.device("cpu")).sort().values
    ties = torch.cat([torch.tensor([1.0]), (table[1:] + table[:-1]) / 2])  # 16 values, so that every block holds the 1
    exponents = torch.randint(-44, 38, (COUNT,), generator=generator).float()
    return {
        "normal, 0.02": normal * 0.02,
        "constant": torch.full((COUNT,), -0.3),
        "zero": torch.zeros(COUNT),
        "subnormal": normal * 1e-41,
        "huge": normal.clamp(-3, 3) * 1e38,
        "every magnitude": (normal * 10.0**exponents).clamp(-3e38, 3e38),
        "ties": ties.repeat(COUNT // 16),
        "a short last block": normal[: COUNT - 31],
    }


def differing(found: torch.Tensor, expected: torch.Tensor) -> int:
    """Return how many elements differ in a bit."""
    integers = {4: torch.int32, 2: torch.int16, 1: torch.uint8}[found.element_size()]
    return int((found.reshape(-1).view(integers) != expected.reshape(-1).view(integers)).sum())


def against_bitsandbytes() -> dict[str, Any]:
    """Return counts of what was compared and of what differs, for both tables, all block sizes and kinds of weights."""
    from bitsandbytes import functional
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    names = ("codes (bytes)", "absmax", *dtypes, *(f"{name}, bits of the compiled unpacking" for name in dtypes))
    counts = {name: {"compared": 0, "differing": 0} for name in names}

    def count(name: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        counts[name]["compared"] += found.numel()
        counts[name]["differing"] += differing(found, expected)

    for scheme in (quant.NF4, quant.FP4):
        for weight in kinds(scheme.name).values():
            for block_size in BLOCK_SIZES:
                ours = scheme(block_size=block_size).quantize(weight[: len(weight) // 2 * 2 or 1])
                even = weight[: len(weight) // 2 * 2]  # an odd row takes bitsandbytes through a compiler
                packed, state = functional.quantize_4bit(even, blocksize=block_size, quant_type=scheme.name)
                count("codes (bytes)", ours.parts["packed"], packed)
                count("absmax", ours.parts["absmax"], state.absmax)
                for name, state.dtype in dtypes.items():
                    found, shape = ours.dequantize(state.dtype), tuple(even.shape)
                    table = (packed.view(-1), state.absmax, state.code, block_size, shape, state.dtype)
                    with torch.compiler.set_stance("force_eager"):
                        formula = _dequantize_4bit_compute(*table)
                    counts[name]["compared"] += found.numel()
                    counts[name]["differing"] += int((found != formula).sum())
                    compiled = functional.dequantize_4bit(packed, state)
                    count(f"{name}, bits of the compiled unpacking", found, compiled)
    return {"kinds of weights": list(kinds("nf4")), "block sizes": list(BLOCK_SIZES), **counts}


def nested_scales() -> dict[str, Any]:
    """Return bytes and errors of double quantization on normal weights, and where it differs from bitsandbytes."""
    from bitsandbytes import functional

    weight = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(0)) * 0.02
    plain, nested = bs.quantize(weight, "nf4"), quant.NF4(double_quant=True).quantize(weight)
    packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    unit = torch.full_like(nested.parts["packed"], 0xFF)  # the code of 1 throughout: what comes back is the scale
    scales = nested.with_parts({**nested.parts, "packed": unit}).dequantize().view(-1, 64)[:, 0]
    relative = (scales / plain.parts["absmax"] - 1).double()
    return {
        "plain bytes": plain.packed_bytes,
        "nested bytes": nested.packed_bytes,
        "scale bias": float(relative.mean()),
        "largest scale error": float(relative.abs().max()),
        "differing codes": differing(nested.parts["packed"], packed),
        "differing scale bytes": differing(nested.parts["absmax"], state.absmax),
        "differing values": int((nested.dequantize() != functional.dequantize_4bit(packed, state)).sum()),
    }


def targets(parity: dict[str, Any], nested: dict[str, Any]) -> dict[str, bool]:
    """Return what was promised and whether it holds."""
    same = not any(parity[name]["differing"] for name in ("codes (bytes)", "absmax", "fp32", "bf16", "fp16"))
    same_nested = not any(value for name, value in nested.items() if name.startswith("differing"))
    return {
        "codes, absmax and values are bitsandbytes'": same,
        "nested scales and their values too": same_nested,
        "nested bytes < plain bytes": nested["nested bytes"] < nested["plain bytes"],
        "scale bias < 0.1 %": abs(nested["scale bias"]) < 0.001,
    }
