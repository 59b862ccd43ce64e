"""ggml in `cpu_kernels.py`: its quantizers and its products on a CPU, called through the library that `build_ggml.py` builds."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from cpu_kernel_clock import Contestant, copies, in_turn, left_out, relative_error, timed
from cpu_kernel_peers import SAME_WEIGHT, THE_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TYPES = {"Q4_0": 2, "Q4_K": 12, "IQ4_NL": 20, "Q8_0": 8, "TQ2_0": 35}
"""By name, their numbers in ggml."""
IN_OWN_ORDER = ("Q4_0", "Q4_K", "IQ4_NL")
"""Those that ggml also keeps in an order of its own ("repack") on most CPUs."""
TRITS = ("TQ2_0",)
"""Made for weights that are ternary already: the error is that of the product, not that of rounding a normal weight to them."""
READ_BYTES, WINDOW_BYTES = 512 * 2**20, 4 * 2**20
_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "version": (ctypes.c_char_p, ()),
    "quiet": (None, ()),
    "bytes": (_SIZE, (_INT, _SIZE, _SIZE)),
    "quantize": (None, (_INT, _POINTER, _POINTER, _SIZE, _SIZE)),
    "dequantize": (None, (_INT, _POINTER, _POINTER, _SIZE)),
    "weights": (_POINTER, (_INT, _POINTER, _SIZE, _SIZE, _SIZE, _INT, _INT, _INT)),
    "multiply": (None, (_POINTER, _INT, _POINTER, _POINTER)),
    "free": (None, (_POINTER,)),
    "read": (ctypes.c_uint64, (_POINTER, _SIZE, _INT)),
}


class Ggml:
    """The library; torch must have been imported before, so that one OpenMP serves both.

    Args:
        path: Of the library.
        weight: What is quantized, float32.
    """

    def __init__(self, path: Path, weight: torch.Tensor) -> None:
        self.library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self.library, f"gs_{name}")
            function.restype, function.argtypes = result, arguments
        self.library.gs_quiet()  # it tells of each weight that it puts into its own order
        self.weight, self.threads = weight, torch.get_num_threads()
        self._codes: dict[str, torch.Tensor] = {}

    def version(self) -> str:
        return self.library.gs_version().decode()

    def quantizers(self, *names: str) -> dict[str, Contestant]:
        """Return its quantizers, which use one thread."""
        return {
            f"ggml {name}": Contestant(lambda name=name: self._quantize(name, self.codes(name)), *self._error(name))
            for name in names
        }

    def dequantizers(self, *names: str) -> dict[str, Contestant]:
        """Return what unpacks into memory that is there already, with one thread."""
        out = torch.empty_like(self.weight)
        codes = {name: self.codes(name) for name in names}
        return {
            f"ggml {name}": Contestant(lambda name=name: self._dequantize(name, codes[name], out)) for name in names
        }

    def products(self, x: torch.Tensor) -> Iterator[tuple[str, Contestant]]:
        """Yield its products as they lie in a file, and in its own order where it has one; they live until `close`."""
        for name in TYPES:
            weight = self._values(name) if name in TRITS else self.weight
            exact = x.double() @ weight.double().t()
            for own_order in (False, True)[: 1 + (name in IN_OWN_ORDER)]:
                if made := self._product(name, x, exact, own_order=own_order):
                    yield f"ggml {name}{' repack' * own_order}", made

    def _product(self, name: str, x: torch.Tensor, exact: torch.Tensor, *, own_order: bool) -> Contestant | None:
        codes, y = self.codes(name), torch.empty(len(x), self.weight.shape[0])
        many = copies(codes.nbytes, len(x))
        sizes = (*self.weight.shape, len(x), many, self.threads, own_order)
        handle = self.library.gs_weights(TYPES[name], codes.data_ptr(), *sizes)
        if not handle:
            left_out[f"ggml {name} repack"] = "ggml has no order of its own for this type on this CPU"
            return None
        following = in_turn(list(range(many)))

        def call() -> None:
            self.library.gs_multiply(handle, following(), x.data_ptr(), y.data_ptr())

        call()
        against = SAME_WEIGHT if name in TRITS else THE_WEIGHT
        made = Contestant(call, codes.nbytes, relative_error(y, exact), against)
        made.extra["close"] = lambda: self.library.gs_free(handle)
        return made

    def read_gb_per_s(self, seconds: float) -> dict[str, float]:
        """Return how fast this machine reads memory that is in no cache: best and median of windows of 4 MiB."""
        memory = torch.zeros(READ_BYTES // 8, dtype=torch.int64)
        starts = in_turn(list(range(0, READ_BYTES, WINDOW_BYTES)))

        def call() -> None:
            self.library.gs_read(memory.data_ptr() + starts(), WINDOW_BYTES // 8, self.threads)

        walls = sorted(wall for wall, _ in timed({"read": call}, seconds, 2000)["read"])
        return {"best": WINDOW_BYTES / walls[0] / 1e9, "median": WINDOW_BYTES / walls[len(walls) // 2] / 1e9}

    def codes(self, name: str) -> torch.Tensor:
        """Return the weight in one of its types."""
        if name not in self._codes:
            size = self.library.gs_bytes(TYPES[name], *self.weight.shape)
            self._codes[name] = torch.empty(size, dtype=torch.uint8)
            self._quantize(name, self._codes[name])
        return self._codes[name]

    def _quantize(self, name: str, out: torch.Tensor) -> None:
        self.library.gs_quantize(TYPES[name], self.weight.data_ptr(), out.data_ptr(), *self.weight.shape)

    def _dequantize(self, name: str, codes: torch.Tensor, out: torch.Tensor) -> None:
        self.library.gs_dequantize(TYPES[name], codes.data_ptr(), out.data_ptr(), out.numel())

    def _values(self, name: str) -> torch.Tensor:
        out = torch.empty_like(self.weight)
        self._dequantize(name, self.codes(name), out)
        return out

    def _error(self, name: str) -> tuple[float, float, str]:
        return 0, relative_error(self._values(name), self.weight), "the weight"
