"""The operations of 8-bit weights: schemas, fakes, workspaces, derivatives. What they compute is told in `reference.py`."""

from __future__ import annotations

import torch

from bedstone.kernels.blocks import blocks_in
from bedstone.kernels.eightbit import reference
from bedstone.kernels.few_rows import int8_workspace
from bedstone.kernels.library import Operation, define, define_linear
from bedstone.kernels.tiles import computing_dtype, product_workspace, rows_in_tile

_WEIGHT = "Tensor codes, Tensor absmax, int block_size"
_SMALL = 2**14  # what belongs to single rows


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


def _quantize_workspace(weight, code_dtype, block_size, per_tensor):  # noqa: ANN001, ANN202
    del code_dtype
    rows, columns = weight.shape
    tile_rows = min(rows, rows_in_tile(columns, tile_bytes=reference.SMALL_TILE))
    scales = 4 * rows if per_tensor else 16 * tile_rows * blocks_in(columns, block_size)
    return 8 * tile_rows * columns + scales + _SMALL


def _dequantize_workspace(codes, absmax, block_size, dtype):  # noqa: ANN001, ANN202
    del block_size
    rows, columns = codes.shape
    tile_rows = min(rows, rows_in_tile(columns, tile_bytes=reference.SMALL_TILE))
    return (4 * tile_rows * columns if dtype != torch.float32 else 0) + 12 * tile_rows * absmax.shape[1] + _SMALL


def _linear_workspace(x, codes, absmax, block_size, bias):  # noqa: ANN001, ANN202
    del block_size, bias
    if reference.few_rows(x, codes, absmax):
        return int8_workspace(x, codes.shape[0]) + 4 * absmax.numel() + _SMALL
    return product_workspace(x, *codes.shape) + 4 * absmax.numel() + _SMALL


def _input_grad_workspace(grad, codes, absmax, block_size):  # noqa: ANN001, ANN202
    del block_size
    scaled = reference.scaled_by_row(absmax, computing_dtype(grad))
    return product_workspace(grad, *codes.shape, scaled=scaled) + 4 * absmax.numel() + _SMALL


quantize_8bit = define(
    "quantize_8bit(Tensor weight, ScalarType code_dtype, int block_size, bool per_tensor) -> (Tensor, Tensor)",
    Operation(reference.quantize, _fake_quantize, _quantize_workspace),
)
dequantize_8bit = define(
    f"dequantize_8bit({_WEIGHT}, ScalarType dtype) -> Tensor",
    Operation(reference.dequantize, _fake_dequantize, _dequantize_workspace),
)
linear_8bit, linear_8bit_op, linear_8bit_input_grad = define_linear(
    "8bit",
    _WEIGHT,
    forward=Operation(reference.linear, _fake_linear, _linear_workspace),
    input_grad=Operation(reference.input_grad, _fake_input_grad, _input_grad_workspace),
)
