"""What `cpu_kernels.py` compares: each operation on a weight, ours in every implementation, the peers beside it.

A case is timed as a whole, its contestants by turns. Errors are against the exact product with the same dequantized weight for ours and for
bitsandbytes' NF4, whose codes are the same, and against the product with the float32 weight for formats that are not ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cpu_kernel_ours as ours
import cpu_kernel_peers as peers
import torch
from peer_ggml import Ggml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cpu_kernel_clock import Contestant

SCHEMES = ("nf4", "fp4", "int8", "fp8", "ternary")
INPUTS = (1, 8, 64, 512)
INPUTS_OF_GRADIENTS = (8, 64, 512)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
OF_GGML = {"nf4": ("Q4_0", "IQ4_NL"), "int8": ("Q8_0",), "ternary": ("TQ2_0",)}
"""What ggml quantizes a weight of the same kind to."""
SLOW_QUANTIZER, MOST_ELEMENTS = "IQ4_NL", 4096 * 4096  # it searches, for seconds


@dataclass
class Case:
    """An operation on a weight of the shape that the process has.

    Attributes:
        op: `quantize`, `dequantize`, `dequantize into a buffer`, `linear` or `input grad`.
        scheme: Ours; empty where all schemes take part.
        inputs: Rows of x; 0 where there is none.
        dtype: Of x or of the dense result.
        contestants: By name; ours begin with `bedstone`.
    """

    op: str
    scheme: str
    inputs: int
    dtype: str
    contestants: dict[str, Contestant]


class Bench:
    """A weight with everything that is done with it.

    Args:
        rows: Of the weight.
        columns: Of the weight.
        library: Of ggml, where it is there.
    """

    def __init__(self, rows: int, columns: int, library: Path | None) -> None:
        self.weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * 0.02
        self.packed = {scheme: ours.Packed(scheme, self.weight) for scheme in SCHEMES}
        self.ggml = None if library is None else Ggml(library, self.weight)

    def cases(self) -> Iterator[Case]:
        """Yield them one after the other; what one of them needs is freed before the next."""
        for scheme in SCHEMES:
            yield self._quantize(scheme)
            for name, dtype in DTYPES.items():
                yield self._into_buffer(scheme, name, dtype)
                fresh = ours.dequantizing(self.packed[scheme], dtype) | peers.dequantizers(scheme, self.weight, dtype)
                yield Case("dequantize", scheme, 0, name, fresh)
        for count in INPUTS:
            yield from self._linear(count)
        for count in INPUTS_OF_GRADIENTS:
            grad = torch.randn(count, self.weight.shape[0])
            found = ours.differentiating(self.packed["nf4"], grad) | peers.input_gradients(self.weight, grad)
            yield Case("input grad", "nf4", count, "float32", found)

    def _quantize(self, scheme: str) -> Case:
        found = ours.quantizing(self.packed[scheme]) | peers.quantizers(scheme, self.weight)
        return Case("quantize", scheme, 0, "float32", found | self._of_ggml("quantizers", scheme))

    def _into_buffer(self, scheme: str, name: str, dtype: torch.dtype) -> Case:
        out = torch.empty(self.weight.shape, dtype=dtype)
        found = ours.into_buffer(self.packed[scheme], out) | peers.kernels_into_buffer(scheme, self.weight, out)
        # Section 7 of the plan compares with the peers' interfaces too, which return memory of their own.
        found |= {f"{who}, fresh": each for who, each in peers.dequantizers(scheme, self.weight, dtype).items()}
        of_ggml = self._of_ggml("dequantizers", scheme) if dtype == torch.float32 else {}
        return Case("dequantize into a buffer", scheme, 0, name, found | of_ggml)

    def _of_ggml(self, what: str, scheme: str) -> dict[str, Contestant]:
        """What ggml does with one thread stands beside one thread only."""
        if self.ggml is None or torch.get_num_threads() > 1:
            return {}
        slow = self.weight.numel() > MOST_ELEMENTS
        names = [name for name in OF_GGML.get(scheme, ()) if not (slow and name == SLOW_QUANTIZER)]
        return getattr(self.ggml, what)(*names)

    def _linear(self, inputs: int) -> Iterator[Case]:
        x = torch.randn(inputs, self.weight.shape[1])
        found = peers.products(self.weight, x)
        for packed in self.packed.values():
            found |= ours.multiplying(packed, x)
        of_ggml = dict(self.ggml.products(x)) if self.ggml else {}
        closing = [each.extra.pop("close") for each in of_ggml.values()]
        yield Case("linear", "", inputs, "float32", found | of_ggml)
        for close in closing:
            close()


def identical_bits(bench: Bench) -> dict[str, bool]:
    """Tell whether our 4-bit codes, scales and values are those of bitsandbytes, bit by bit."""
    from bitsandbytes import functional

    found = {}
    for scheme in ("nf4", "fp4"):
        codes, absmax, *_ = bench.packed[scheme].arguments
        theirs, state = functional.quantize_4bit(bench.weight, blocksize=peers.BLOCK, quant_type=scheme)
        values = functional.dequantize_4bit(theirs, state)
        same = torch.equal(codes.view(-1), theirs.view(-1)) and torch.equal(absmax, state.absmax)
        found[scheme] = same and torch.equal(bench.packed[scheme].dense, values)
    return found
