"""The operations of ternary weights: schemas, fakes, derivatives. What they compute is told in `reference.py`."""

from __future__ import annotations

import torch

from bedstone.kernels.blocks import blocks_in
from bedstone.kernels.layouts import trit_bytes
from bedstone.kernels.library import define, define_linear
from bedstone.kernels.ternary import reference

_WEIGHT = "Tensor packed, Tensor scale, SymInt[] shape, int block_size"


def _fake_quantize(weight, block_size, per_tensor):  # noqa: ANN001, ANN202
    rows, columns = weight.shape
    size = (1, 1) if per_tensor else (rows, blocks_in(columns, block_size))
    packed = weight.new_empty((rows, trit_bytes(columns)), dtype=torch.uint8)
    return packed, weight.new_empty(size, dtype=torch.float32)


def _fake_dequantize(packed, scale, shape, block_size, dtype):  # noqa: ANN001, ANN202
    del scale, block_size
    return packed.new_empty(shape, dtype=dtype)


def _fake_linear(x, packed, scale, shape, block_size, bias):  # noqa: ANN001, ANN202
    del packed, scale, block_size, bias
    return x.new_empty(*x.shape[:-1], shape[0])


def _fake_input_grad(grad, packed, scale, shape, block_size):  # noqa: ANN001, ANN202
    del packed, scale, block_size
    return grad.new_empty(*grad.shape[:-1], shape[1])


quantize_ternary = define(
    "quantize_ternary(Tensor weight, int block_size, bool per_tensor) -> (Tensor, Tensor)",
    reference.quantize,
    _fake_quantize,
)
dequantize_ternary = define(
    f"dequantize_ternary({_WEIGHT}, ScalarType dtype) -> Tensor", reference.dequantize, _fake_dequantize
)
linear_ternary, linear_ternary_op, linear_ternary_input_grad = define_linear(
    "ternary",
    _WEIGHT,
    forward=(reference.linear, _fake_linear),
    input_grad=(reference.input_grad, _fake_input_grad),
)
