"""What `quant_ops.py` compares: packed weights of ours and of three peers, and the operations that they share.

Everybody's weight is made from the same dense one, through the interface that its documentation shows. A case is a row of the
table: ours and, by the name of the package, what a peer has. Weights of up to 8 tokens go round through copies that together
exceed the largest cache, so that these figures are those of memory, as in decoding.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import bedstone as bs
from bedstone import quant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BNB, TORCHAO, QUANTO = "bitsandbytes", "torchao", "optimum-quanto"
BNB_EXACT = "bitsandbytes, float32"
MODULES = {BNB: "bitsandbytes", TORCHAO: "torchao", QUANTO: "optimum.quanto"}
SMALL, LARGE, LARGEST = ((576, 576), (1536, 576), (576, 1536)), (4096, 4096), (11008, 4096)
CACHE_BYTES = 80 * 2**20  # what the copies of a weight exceed together; more than the largest caches of one socket
FEW_TOKENS = 8
MOST_COPIES = 40
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_BITS = {"nf4": 4.5, "fp4": 4.5, "int8": 8, "fp8": 8, "ternary": 2}


@dataclass
class Case:
    """One operation on one weight.

    Attributes:
        op: `quantize`, `dequantize`, `linear` or `input grad`.
        scheme: Ours.
        shape: Of the weight, `(N, K)`.
        tokens: Rows of the input; 0 where there is none.
        dtype: Of the input, or of the dense result.
        contenders: `ours` and the peers, each a call that does the operation once.
        target: The least that bitsandbytes' time over ours may be.
        note: What else differs.
    """

    op: str
    scheme: str
    shape: tuple[int, int]
    tokens: int
    dtype: str
    contenders: dict[str, Callable[[], Any]]
    target: float | None = 1.0
    note: str = ""


def installed() -> tuple[str, ...]:
    """Return the peers that can be imported."""
    return tuple(name for name, module in MODULES.items() if importlib.util.find_spec(module.partition(".")[0]))


def cases(peers: Sequence[str], *, quick: bool) -> Iterator[Case]:
    """Yield the cases one after the other, so that one weight at a time is in memory."""
    logging.disable(logging.WARNING)  # peers warn about GPU libraries and about their own casts, once a call
    shapes = ((192, 576),) if quick else (*SMALL, LARGE, LARGEST)
    tokens = (1, 64) if quick else (1, 8, 64, 256, 512, 2048)
    for shape in shapes:
        dense = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02
        for scheme in ("nf4", "fp4", "int8", "fp8", "ternary"):
            if scheme in ("fp4", "fp8") and shape not in (SMALL[1], LARGE, *shapes[:1]):
                continue
            yield from _storing(scheme, dense, peers)
            yield from _products(scheme, dense, peers, tokens)


# --- quantize and dequantize ---------------------------------------------------------------------


def _storing(scheme: str, dense: torch.Tensor, peers: Sequence[str]) -> Iterator[Case]:
    shape = tuple(dense.shape)
    theirs = _bitsandbytes_storing(scheme, dense) if BNB in peers else {}
    if shape != LARGEST:  # seconds a call there, and nothing that the next smaller one does not show
        packing = {"ours": lambda: bs.quantize(dense, scheme)} | _named(theirs.get("quantize"))
        yield Case("quantize", scheme, shape, 0, "fp32", packing, 1.1 if scheme == "nf4" else 1.0)
    packed = bs.quantize(dense, scheme)
    for name, dtype in DTYPES.items():
        unpacking = {"ours": lambda dtype=dtype: packed.dequantize(dtype)} | _named(theirs.get(name))
        target = 1.3 if (scheme, name) == ("nf4", "bf16") else 1.0
        yield Case("dequantize", scheme, shape, 0, name, unpacking, target)


def _named(call: Callable[[], Any] | None) -> dict[str, Callable[[], Any]]:
    return {} if call is None else {BNB: call}


def _bitsandbytes_storing(scheme: str, dense: torch.Tensor) -> dict[str, Callable[[], Any]]:
    from bitsandbytes import functional

    if scheme in ("nf4", "fp4"):
        packed, state = functional.quantize_4bit(dense, blocksize=64, quant_type=scheme)
        half = functional.quantize_4bit(dense.bfloat16(), blocksize=64, quant_type=scheme)[1]
        return {
            "quantize": lambda: functional.quantize_4bit(dense, blocksize=64, quant_type=scheme),
            "fp32": lambda: functional.dequantize_4bit(packed, state),
            "bf16": lambda: functional.dequantize_4bit(packed, half),
        }
    if scheme == "int8":
        codes, rows, _ = functional.int8_vectorwise_quant(dense.half())
        return {
            "quantize": lambda: functional.int8_vectorwise_quant(dense.half()),
            "fp32": lambda: functional.int8_vectorwise_dequant(codes, rows),
            "bf16": lambda: functional.int8_vectorwise_dequant(codes, rows).bfloat16(),
        }
    return {}


# --- products ------------------------------------------------------------------------------------


def _products(scheme: str, dense: torch.Tensor, peers: Sequence[str], tokens: Sequence[int]) -> Iterator[Case]:
    shape = tuple(dense.shape)
    large = dense.numel() >= LARGE[0] * LARGE[1]
    for name, dtype in DTYPES.items():
        makers = {"ours": _ours} | {peer: _PEERS[peer] for peer in peers}
        layers = {who: maker(scheme, dense, dtype) for who, maker in makers.items()}
        layers = {who: layer for who, layer in layers.items() if layer is not None}
        # Its first forward pass without a gradient repacks a 4-bit layer for good where the CPU multiplies bfloat16.
        trained = layers | {BNB: _bitsandbytes(scheme, dense, dtype)} if BNB in layers else layers
        for count in tokens:
            if count in ((256, 2048) if large else (512,)) or (shape == LARGEST and count > FEW_TOKENS):
                continue
            if name == "bf16" and count > 64:  # a CPU without bf16 units: seconds a call for whoever computes in it
                continue
            x = torch.randn(count, shape[1]).to(dtype)
            calls = {who: _forward(_rotated(who, layer, scheme, shape, count), x) for who, layer in layers.items()}
            if name == "fp32" and scheme in ("nf4", "fp4") and _multiplies_bfloat16(peers):
                calls[BNB_EXACT] = _forward(_rotated(BNB, trained[BNB], scheme, shape, count), x, grad=True)
            fast = scheme in ("int8", "ternary") and count == 1 and large
            yield Case("linear", scheme, shape, count, name, calls, 10.0 if fast else 1.0, _NOTES.get(scheme, ""))
            if name == "fp32" and count >= FEW_TOKENS and scheme in ("nf4", "fp4", "int8"):
                calls = {who: _backward(layer, x) for who, layer in trained.items() if who != TORCHAO}
                yield Case("input grad", scheme, shape, count, name, calls, note="forward is not timed")


_NOTES = {
    "int8": "bitsandbytes also rounds the input to int8, torchao and quanto do not",
    "ternary": "no peer has ternary: bitsandbytes' NF4 beside it",
    "nf4": "where the CPU can, bitsandbytes multiplies in bfloat16 unless a gradient is wanted",
    "fp4": "where the CPU can, bitsandbytes multiplies in bfloat16 unless a gradient is wanted",
    "fp8": "bitsandbytes has none: ours beside torchao and quanto",
}


def _linear(dense: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(dense.shape[1], dense.shape[0], bias=False)
    layer.weight = nn.Parameter(dense.clone(), requires_grad=False)
    return layer


def _ours(scheme: str, dense: torch.Tensor, dtype: torch.dtype) -> nn.Module:
    layer = _linear(dense.to(dtype))
    bs.quantize(layer, quant.FP8(granularity="row") if scheme == "fp8" else scheme)
    return layer


def _bitsandbytes(scheme: str, dense: torch.Tensor, dtype: torch.dtype) -> nn.Module | None:
    import bitsandbytes

    rows, columns = dense.shape
    if scheme == "fp8":
        return None
    if scheme == "int8":
        eight = bitsandbytes.nn.Linear8bitLt(columns, rows, bias=False, has_fp16_weights=False)
        eight.weight = bitsandbytes.nn.Int8Params(dense.clone(), requires_grad=False, has_fp16_weights=False)
        return eight.to("cpu")
    kind = "fp4" if scheme == "fp4" else "nf4"
    options = {"quant_type": kind, "compress_statistics": False}
    four = bitsandbytes.nn.Linear4bit(columns, rows, bias=False, compute_dtype=dtype, **options)
    four.weight = bitsandbytes.nn.Params4bit(dense.to(dtype), requires_grad=False, **options)
    return four.to("cpu")


def _torchao(scheme: str, dense: torch.Tensor, dtype: torch.dtype) -> nn.Module | None:
    from torchao import quantization

    kinds = {"int8": quantization.Int8WeightOnlyConfig, "fp8": quantization.Float8WeightOnlyConfig}
    if scheme not in kinds:
        return None
    layer = _linear(dense.to(dtype))
    quantization.quantize_(layer, kinds[scheme]())
    return layer


def _quanto(scheme: str, dense: torch.Tensor, dtype: torch.dtype) -> nn.Module | None:
    from optimum import quanto

    kinds = {"int8": quanto.qint8, "fp8": quanto.qfloat8}
    if scheme not in kinds:
        return None
    model = nn.Sequential(_linear(dense.to(dtype)))
    quanto.quantize(model, weights=kinds[scheme])
    quanto.freeze(model)
    return model


_PEERS = {BNB: _bitsandbytes, TORCHAO: _torchao, QUANTO: _quanto}


def _rotated(who: str, layer: nn.Module, scheme: str, shape: tuple[int, int], tokens: int) -> Iterator[nn.Module]:
    """Return an endless row of copies that together do not fit into a cache, or of the one layer.

    Quanto's weights cannot be copied: its figures are those of a weight in the cache.
    """
    copies = round(CACHE_BYTES / (shape[0] * shape[1] * _BITS[scheme] / 8)) if tokens <= FEW_TOKENS else 1
    if who == QUANTO:
        copies = 1
    return itertools.cycle([layer, *(copy.deepcopy(layer) for _ in range(min(copies, MOST_COPIES) - 1))])


def _multiplies_bfloat16(peers: Sequence[str]) -> bool:
    if BNB not in peers:
        return False
    from bitsandbytes.functional import has_avx512bf16

    return has_avx512bf16()


def _forward(layers: Iterator[nn.Module], x: torch.Tensor, *, grad: bool = False) -> Callable[[], torch.Tensor]:
    x = x.clone().requires_grad_(grad)

    def call() -> torch.Tensor:
        with torch.set_grad_enabled(grad):
            return next(layers).train(grad)(x)

    return call


def _backward(layer: nn.Module, x: torch.Tensor) -> Callable[[], Any]:
    """Return the gradient of the input alone: the forward pass is done once, its graph is kept."""
    x = x.clone().requires_grad_()
    out = layer.train()(x)  # bitsandbytes' int8 layer has another product for training
    grad = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, x, grad, retain_graph=True)
