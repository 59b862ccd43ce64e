"""The quantizers that `quant_error.py` compares: ours, bitsandbytes, torchao and optimum-quanto, each as one function.

A function takes a weight `[rows, columns]` in float32 and returns it packed and unpacked again, and the bytes that the packed one
holds, all scales and tables included. Activations stay float32 everywhere: only the weights are compared.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bedstone.quant import FP4, FP8, NF4, Int8, Scheme, Ternary, model_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

RoundTrip = tuple[torch.Tensor, int]


@dataclass(frozen=True)
class Subject:
    """A quantizer.

    Attributes:
        package: As pip knows it.
        scheme: As its users call it.
        options: What differs from the default, in words.
        round_trip: Of a weight.
        note: What a reader must know.
    """

    package: str
    scheme: str
    options: str
    round_trip: Callable[[torch.Tensor], RoundTrip]
    note: str = ""


def installed() -> list[Subject]:
    """Return the quantizers whose packages are here, ours first; each peer that is not here is left out."""
    modules = {
        "bedstone": "bedstone",
        "bitsandbytes": "bitsandbytes",
        "torchao": "torchao",
        "optimum-quanto": "optimum",
    }
    return [subject for subject in SUBJECTS if importlib.util.find_spec(modules[subject.package])]


def ours(scheme: Scheme, options: str) -> Subject:
    def round_trip(weight: torch.Tensor) -> RoundTrip:
        packed = scheme.quantize(weight)
        return packed.dequantize(), packed.packed_bytes

    return Subject("bedstone", scheme.name, options, round_trip)


def bitsandbytes_4bit(kind: str, nested: bool) -> Callable[[torch.Tensor], RoundTrip]:
    def round_trip(weight: torch.Tensor) -> RoundTrip:
        from bitsandbytes import functional

        packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=nested)
        packed.quant_state = state  # where `model_bytes` looks for it
        return functional.dequantize_4bit(packed, state), model_bytes(packed)

    return round_trip


def bitsandbytes_int8(weight: torch.Tensor) -> RoundTrip:
    from bitsandbytes import functional

    codes, absmax, _ = functional.int8_vectorwise_quant(weight)
    return functional.int8_vectorwise_dequant(codes, absmax), codes.nbytes + absmax.nbytes


def torchao(config: Callable[[], Any]) -> Callable[[torch.Tensor], RoundTrip]:
    def round_trip(weight: torch.Tensor) -> RoundTrip:
        from torchao.quantization import quantize_

        layer = _layer(weight)
        quantize_(layer, config())
        return layer[0].weight.dequantize().detach(), model_bytes(layer[0].weight.detach())

    return round_trip


def torchao_config(name: str, **options: Any) -> Callable[[], Any]:
    def made() -> Any:
        from torchao import quantization
        from torchao.quantization.granularity import PerGroup

        chosen = {key: PerGroup(value) if key == "granularity" else value for key, value in options.items()}
        return getattr(quantization, name)(**chosen)

    return made


def quanto(kind: str) -> Callable[[torch.Tensor], RoundTrip]:
    def round_trip(weight: torch.Tensor) -> RoundTrip:
        from optimum import quanto as package

        layer = _layer(weight)
        package.quantize(layer, weights=getattr(package, kind))
        package.freeze(layer)
        return layer[0].weight.dequantize().detach(), model_bytes(layer[0].weight.data)

    return round_trip


def _layer(weight: torch.Tensor) -> nn.Sequential:
    layer = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    layer[0].weight.data = weight.clone()
    return layer


E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
SUBJECTS = [
    ours(NF4(), "blocks of 64"),
    ours(NF4(double_quant=True), "blocks of 64, double quantization"),
    ours(NF4(block_size=32), "blocks of 32"),
    ours(FP4(), "blocks of 64"),
    ours(Int8(), "a scale a row"),
    ours(Int8("block", 64), "blocks of 64"),
    ours(FP8(), "e4m3fn, a scale a row"),
    ours(FP8(format="e5m2"), "e5m2, a scale a row"),
    ours(Ternary(), "a scale a tensor"),
    ours(Ternary("block", 64), "blocks of 64"),
    Subject("bitsandbytes", "nf4", "blocks of 64", bitsandbytes_4bit("nf4", nested=False)),
    Subject("bitsandbytes", "nf4", "blocks of 64, double quantization", bitsandbytes_4bit("nf4", nested=True)),
    Subject("bitsandbytes", "fp4", "blocks of 64", bitsandbytes_4bit("fp4", nested=False)),
    Subject(
        "bitsandbytes", "int8", "a scale a row", bitsandbytes_int8, "its product quantizes activations too; not here"
    ),
    Subject("torchao", "Int8WeightOnly", "a scale a row", torchao(torchao_config("Int8WeightOnlyConfig"))),
    Subject(
        *("torchao", "IntxWeightOnly int4", "symmetric, blocks of 64"),
        torchao(torchao_config("IntxWeightOnlyConfig", weight_dtype=torch.int4, granularity=64)),
        "on a CPU it keeps a byte for each 4-bit code",
    ),
    Subject("torchao", "Float8WeightOnly", "e4m3fn, a scale a row", torchao(torchao_config("Float8WeightOnlyConfig"))),
    Subject("optimum-quanto", "qint8", "a scale a row", quanto("qint8")),
    Subject("optimum-quanto", "qint4", "affine, blocks of 128", quanto("qint4")),
    Subject("optimum-quanto", "qfloat8_e4m3fn", "a scale a row", quanto("qfloat8_e4m3fn")),
    Subject("optimum-quanto", "qfloat8_e5m2", "a scale a row", quanto("qfloat8_e5m2")),
    Subject("optimum-quanto", "qint2", "affine, blocks of 128", quanto("qint2")),
]
