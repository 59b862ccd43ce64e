"""Packed weights: one contract, five schemes, one tensor that lives in an ordinary `nn.Linear`.

>>> import torch
>>> import bedstone as bs
>>> layer = torch.nn.Linear(64, 8)
>>> report = bs.quantize(layer, "nf4")
>>> layer.weight.scheme, layer.weight.bits_per_param
(NF4(block_size=64, double_quant=False), 4.5)

`BedstoneConfig`, for transformers' `from_pretrained`, is loaded on first use: all else here needs no transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.quant.errors import NonFiniteWeightError as NonFiniteWeightError
from bedstone.quant.errors import PackedWriteError as PackedWriteError
from bedstone.quant.errors import QuantizationError as QuantizationError
from bedstone.quant.scheme import Parts as Parts
from bedstone.quant.scheme import Scheme as Scheme
from bedstone.quant.scheme import get_scheme as get_scheme
from bedstone.quant.scheme import scheme_from_dict as scheme_from_dict
from bedstone.quant.scheme import schemes as schemes

from bedstone.quant.fourbit import NF4 as NF4  # isort: skip - registers itself, in the order that users see
from bedstone.quant.fourbit import FP4 as FP4  # isort: skip
from bedstone.quant.int8 import Int8 as Int8  # isort: skip
from bedstone.quant.fp8 import FP8 as FP8  # isort: skip
from bedstone.quant.ternary import Ternary as Ternary  # isort: skip
from bedstone.quant.bitlinear import BitLinear as BitLinear
from bedstone.quant.bitlinear import BitLinearConfig as BitLinearConfig
from bedstone.quant.bitlinear_model import BitLinearReport as BitLinearReport
from bedstone.quant.bitlinear_model import pack as pack
from bedstone.quant.bitlinear_model import set_strength as set_strength
from bedstone.quant.bitlinear_model import to_bitlinear as to_bitlinear
from bedstone.quant.bitlinear_model import unpack as unpack
from bedstone.quant.model import PackedLayer as PackedLayer
from bedstone.quant.model import QuantizationReport as QuantizationReport
from bedstone.quant.model import dequantize as dequantize
from bedstone.quant.model import quantize as quantize
from bedstone.quant.sizes import model_bytes as model_bytes
from bedstone.quant.tensor import QuantizedTensor as QuantizedTensor

if TYPE_CHECKING:
    from bedstone.quant.formats.transformers_config import BedstoneConfig as BedstoneConfig

__all__ = [
    "FP4",
    "FP8",
    "NF4",
    "BedstoneConfig",
    "BitLinear",
    "BitLinearConfig",
    "BitLinearReport",
    "Int8",
    "NonFiniteWeightError",
    "PackedLayer",
    "PackedWriteError",
    "Parts",
    "QuantizationError",
    "QuantizationReport",
    "QuantizedTensor",
    "Scheme",
    "Ternary",
    "dequantize",
    "get_scheme",
    "model_bytes",
    "pack",
    "quantize",
    "scheme_from_dict",
    "schemes",
    "set_strength",
    "to_bitlinear",
    "unpack",
]


def __getattr__(name: str) -> object:
    if name != "BedstoneConfig":
        raise AttributeError(f"module 'bedstone.quant' has no attribute {name!r}")
    from bedstone.quant.formats.transformers_quantizer import BedstoneConfig

    globals()[name] = BedstoneConfig  # the next look-up does not come here
    return BedstoneConfig


def __dir__() -> list[str]:
    return sorted({*globals(), "BedstoneConfig"})
