"""The operations of 4-bit weights: schemas, fakes, derivatives. What they compute is told in `reference.py`."""

from __future__ import annotations

import torch

from bedstone.kernels.fourbit import reference
from bedstone.kernels.library import define, define_linear

_WEIGHT = (
    "Tensor packed, Tensor absmax, Tensor? nested_absmax, Tensor? offset, SymInt[] shape, int block_size, str code"
)


def _fake_quantize(weight: torch.Tensor, block_size: int, code: str) -> tuple[torch.Tensor, torch.Tensor]:
    del code
    count = weight.numel()
    absmax = weight.new_empty(-(-count // block_size), dtype=torch.float32)
    return weight.new_empty(-(-count // 2), dtype=torch.uint8), absmax


def _fake_quantize_absmax(absmax: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    groups = -(-absmax.numel() // reference.NESTED_BLOCK)
    return absmax.new_empty(absmax.shape, dtype=torch.uint8), absmax.new_empty(groups), absmax.new_empty(())


def _fake_dequantize(packed, absmax, nested_absmax, offset, shape, block_size, code, dtype):  # noqa: ANN001, ANN202
    del absmax, nested_absmax, offset, block_size, code
    return packed.new_empty(shape, dtype=dtype)


def _fake_linear(x, packed, absmax, nested_absmax, offset, shape, block_size, code, bias):  # noqa: ANN001, ANN202
    del packed, absmax, nested_absmax, offset, block_size, code, bias
    return x.new_empty(*x.shape[:-1], shape[0])


def _fake_input_grad(grad, packed, absmax, nested_absmax, offset, shape, block_size, code):  # noqa: ANN001, ANN202
    del packed, absmax, nested_absmax, offset, block_size, code
    return grad.new_empty(*grad.shape[:-1], shape[1])


quantize_4bit = define(
    "quantize_4bit(Tensor weight, int block_size, str code) -> (Tensor, Tensor)", reference.quantize, _fake_quantize
)
quantize_absmax = define(
    "quantize_absmax(Tensor absmax) -> (Tensor, Tensor, Tensor)", reference.quantize_absmax, _fake_quantize_absmax
)
dequantize_4bit = define(
    f"dequantize_4bit({_WEIGHT}, ScalarType dtype) -> Tensor", reference.dequantize, _fake_dequantize
)
linear_4bit, linear_4bit_op, linear_4bit_input_grad = define_linear(
    "4bit",
    _WEIGHT,
    forward=(reference.linear, _fake_linear),
    input_grad=(reference.input_grad, _fake_input_grad),
)
