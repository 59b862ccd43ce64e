"""The packed bases that `tuner_table.py` puts peft's tuners on: ours, bitsandbytes', torchao's, and the dense layers they stand in for.

Each is set up as peft wants it: bitsandbytes' flags and torchao's quantizer are what transformers' `from_pretrained` sets.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import bedstone as bs
from bedstone import quant

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 128  # torchao's NF4 wants at least 64 x 256 weights a layer
HEAD = "lm_head"  # every base leaves it dense


class Net(nn.Module):
    """Two square layers with something between them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


def net(base: str) -> Net:
    """Return the small network on a base, the same weights every time."""
    torch.manual_seed(0)
    made = Net()
    BASES[base](made)
    return made


def llama(base: str) -> nn.Module:
    """Return a small Llama on a base."""
    from bedstone.testing import tiny_llama

    made = tiny_llama(num_hidden_layers=1, hidden_size=128, intermediate_size=128, num_key_value_heads=4)
    BASES[base](made)
    return made


def _dense(model: nn.Module) -> None:
    model.requires_grad_(requires_grad=False)


def _ours(scheme: quant.Scheme) -> Callable[[nn.Module], None]:
    def pack(model: nn.Module) -> None:
        bs.quantize(model, scheme)

    return pack


def _bitsandbytes_nf4(model: Any) -> None:
    import bitsandbytes as bnb

    def make(layer: nn.Linear) -> nn.Module:
        size, bias = (layer.in_features, layer.out_features), layer.bias is not None
        new = bnb.nn.Linear4bit(*size, bias=bias, quant_type="nf4", compute_dtype=torch.float32)
        new.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4").to("cpu")
        return new

    _replace(model, make)
    model.is_loaded_in_4bit = True


def _bitsandbytes_int8(model: Any) -> None:
    import bitsandbytes as bnb

    def make(layer: nn.Linear) -> nn.Module:
        size, bias = (layer.in_features, layer.out_features), layer.bias is not None
        new = bnb.nn.Linear8bitLt(*size, bias=bias, has_fp16_weights=False)
        new.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False).to("cpu")
        return new

    _replace(model, make)
    model.is_loaded_in_8bit = True


def _replace(model: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> None:
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and name != HEAD:
            parent, _, last = name.rpartition(".")
            new: Any = make(layer)
            new.bias = layer.bias
            setattr(model.get_submodule(parent), last, new)
    model.requires_grad_(requires_grad=False)


def _torchao(config: Callable[[], Any]) -> Callable[[nn.Module], None]:
    def pack(model: Any) -> None:
        from torchao.quantization import quantize_
        from transformers import TorchAoConfig

        made = config()
        quantize_(model, made, filter_fn=lambda layer, name: isinstance(layer, nn.Linear) and name != HEAD)
        model.hf_quantizer = types.SimpleNamespace(quantization_config=TorchAoConfig(made))
        model.requires_grad_(requires_grad=False)

    return pack


def _torchao_int8() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig()


def _torchao_nf4() -> Any:
    from torchao.prototype._nf4tensor_api import NF4WeightOnlyConfig  # where 0.18 keeps it

    return NF4WeightOnlyConfig()


def _torchao_int4() -> Any:
    from torchao.quantization import Int4WeightOnlyConfig

    return Int4WeightOnlyConfig(group_size=32)


OURS = {
    "nf4": quant.NF4(),
    "nf4, double": quant.NF4(double_quant=True),
    "fp4": quant.FP4(),
    "int8": quant.Int8(),
    "fp8": quant.FP8(),
    "ternary": quant.Ternary(),
}
PEERS: dict[str, Callable[[nn.Module], None]] = {
    "dense": _dense,
    "bitsandbytes nf4": _bitsandbytes_nf4,
    "bitsandbytes int8": _bitsandbytes_int8,
    "torchao int8": _torchao(_torchao_int8),
    "torchao nf4": _torchao(_torchao_nf4),
    "torchao int4": _torchao(_torchao_int4),
}
BASES = {name: _ours(scheme) for name, scheme in OURS.items()} | PEERS
