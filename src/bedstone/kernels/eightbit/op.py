"""The operations of 8-bit weights: schemas, fakes, derivatives. What they compute is told in `reference.py`."""

from __future__ import annotations

import torch

from bedstone.kernels.blocks import blocks_in
from bedstone.kernels.eightbit import reference
from bedstone.kernels.library import define, define_linear

_WEIGHT = "Tensor codes, Tensor absmax, int block_size"


def _fake_quantize(weight, code_dtype, block_size, per_tensor):  # noqa: ANN001, ANN202
    rows, columns = weight.shape
    size = (1, 1) if per_tensor else (rows, blocks_in(columns, block_size))
    return weight.new_empty(weight.shape, dtype=code_dtype), weight.new_empty(size, dtype=torch.float32)


def _fake_dequantize(codes, absmax, block_size, dtype):  # noqa: ANN001, ANN202
    del absmax, block_size
    return codes.new_empty(codes.shape, dtype=dtype)


def _fake_linear(x, codes, absmax, block_size, bias):  # noqa: ANN001, ANN202
    del absmax, block_size, bias
    return x.new_empty(*x.shape[:-1], codes.shape[0])


def _fake_input_grad(grad, codes, absmax, block_size):  # noqa: ANN001, ANN202
    del absmax, block_size
    return grad.new_empty(*grad.shape[:-1], codes.shape[1])


quantize_8bit = define(
    "quantize_8bit(Tensor weight, ScalarType code_dtype, int block_size, bool per_tensor) -> (Tensor, Tensor)",
    reference.quantize,
    _fake_quantize,
)
dequantize_8bit = define(
    f"dequantize_8bit({_WEIGHT}, ScalarType dtype) -> Tensor", reference.dequantize, _fake_dequantize
)
linear_8bit, linear_8bit_op, linear_8bit_input_grad = define_linear(
    "8bit",
    _WEIGHT,
    forward=(reference.linear, _fake_linear),
    input_grad=(reference.input_grad, _fake_input_grad),
)
