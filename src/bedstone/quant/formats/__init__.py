"""Packed weights in files: our own, and those of bitsandbytes, transformers' BitNet, Microsoft's BitNet and GGUF.

Importing this imports none of those packages.

>>> import torch
>>> import bedstone as bs
>>> tensors, metadata = flatten_state_dict({"w": bs.quantize(torch.ones(8, 64), "nf4")})
>>> {name: tuple(tensor.shape) for name, tensor in tensors.items()}
{'w.packed': (256,), 'w.absmax': (8,)}
"""

from bedstone.quant.formats.bitnet import from_bitnet as from_bitnet
from bedstone.quant.formats.bitnet import to_bitnet as to_bitnet
from bedstone.quant.formats.bitsandbytes import from_bitsandbytes as from_bitsandbytes
from bedstone.quant.formats.bitsandbytes import to_bitsandbytes as to_bitsandbytes
from bedstone.quant.formats.errors import FormatVersionError as FormatVersionError
from bedstone.quant.formats.errors import WeightFormatError as WeightFormatError
from bedstone.quant.formats.flat import flatten_state_dict as flatten_state_dict
from bedstone.quant.formats.flat import unflatten_state_dict as unflatten_state_dict
from bedstone.quant.formats.gguf_export import GgufReport as GgufReport
from bedstone.quant.formats.gguf_export import GgufTensor as GgufTensor
from bedstone.quant.formats.gguf_export import export_gguf as export_gguf
from bedstone.quant.formats.gguf_load import load_gguf as load_gguf
from bedstone.quant.formats.i2_s import from_i2_s as from_i2_s
from bedstone.quant.formats.i2_s import to_i2_s as to_i2_s
from bedstone.quant.formats.native import assign_state as assign_state
from bedstone.quant.formats.native import load_quantized as load_quantized
from bedstone.quant.formats.native import save_quantized as save_quantized

__all__ = [
    "FormatVersionError",
    "GgufReport",
    "GgufTensor",
    "WeightFormatError",
    "assign_state",
    "export_gguf",
    "flatten_state_dict",
    "from_bitnet",
    "from_bitsandbytes",
    "from_i2_s",
    "load_gguf",
    "load_quantized",
    "save_quantized",
    "to_bitnet",
    "to_bitsandbytes",
    "to_i2_s",
    "unflatten_state_dict",
]
