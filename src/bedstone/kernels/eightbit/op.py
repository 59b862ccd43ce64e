"""The operations of 8-bit weights: schemas, fakes, workspaces, derivatives. What they compute is told in `reference.py`."""

from __future__ import annotations

import math

import torch

from bedstone.kernels.blocks import blocks_in
from bedstone.kernels.eightbit import native, reference
from bedstone.kernels.eightbit.packings import PACKINGS
from bedstone.kernels.few_rows import int8_workspace
from bedstone.kernels.implementation import KernelImpl, KernelSpec
from bedstone.kernels.library import Operation, define, define_linear
from bedstone.kernels.native import rounded
from bedstone.kernels.native.calls import compiled
from bedstone.kernels.registry import KernelOp
from bedstone.kernels.samples import packed_samples
from bedstone.kernels.tiles import computing_dtype, product_workspace, rows_in_tile
from bedstone.kernels.triton.lazy import in_triton

_WEIGHT = "Tensor codes, Tensor absmax, int block_size"
_TRITON = "bedstone.kernels.eightbit.triton_calls"
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


def _native_quantize_workspace(weight, code_dtype, block_size, per_tensor):  # noqa: ANN001, ANN202
    del code_dtype, block_size, per_tensor
    return _SMALL + 4 * weight.shape[0]


def _native_dequantize_workspace(codes, absmax, block_size, dtype):  # noqa: ANN001, ANN202
    del codes, absmax, block_size, dtype
    return _SMALL


def _native_linear_workspace(x, codes, absmax, block_size, bias):  # noqa: ANN001, ANN202
    if native.takes_torchs_product(x, codes, absmax):
        return _linear_workspace(x, codes, absmax, block_size, bias)
    inputs = math.prod(x.shape[:-1])
    if inputs <= native.FEW_INPUTS:
        return (4 * inputs * codes.shape[1] if x.dtype != torch.float32 else 0) + _SMALL
    return product_workspace(x, *codes.shape) + _SMALL


def _rounded_linear_workspace(x, codes, absmax, block_size, bias):  # noqa: ANN001, ANN202
    if block_size % rounded.GROUP:
        return _native_linear_workspace(x, codes, absmax, block_size, bias)
    return rounded.workspace(math.prod(x.shape[:-1]), codes.shape[1]) + _SMALL


def _native_input_grad_workspace(grad, codes, absmax, block_size):  # noqa: ANN001, ANN202
    del absmax, block_size
    return product_workspace(grad, *codes.shape) + _SMALL


def _gpu_workspace(first: torch.Tensor, *rest: object) -> int:
    """The first argument, if it must be brought into one piece."""
    del rest
    return first.nbytes + _SMALL


def _spec_of_weight(weight, code_dtype, block_size, per_tensor):  # noqa: ANN001, ANN202
    del code_dtype, block_size, per_tensor
    return KernelSpec(weight.device.type, weight.dtype, 0, *weight.shape)


def _spec_of_dense(codes, absmax, block_size, dtype):  # noqa: ANN001, ANN202
    del absmax, block_size
    return KernelSpec(codes.device.type, dtype, 0, *codes.shape)


def _spec_of_product(x, codes, absmax, block_size, bias=None):  # noqa: ANN001, ANN202
    del absmax, block_size, bias
    spec = KernelSpec.of_product(x, *codes.shape)
    return spec if codes.dtype is torch.int8 else spec._replace(options="float8")


def _unfit_rounded(spec: KernelSpec) -> str:
    return "float8 has no whole numbers for codes" if spec.options == "float8" else rounded.unfit(spec)


_quantize = KernelOp(
    "quantize_8bit",
    _spec_of_weight,
    compiled(native.quantize, _native_quantize_workspace),
    KernelImpl("reference", reference.quantize, _quantize_workspace),
    samples=packed_samples("quantize", PACKINGS),
    agreement="bits",
)
_dequantize = KernelOp(
    "dequantize_8bit",
    _spec_of_dense,
    in_triton(_TRITON, "dequantize", _gpu_workspace),
    compiled(native.dequantize, _native_dequantize_workspace),
    KernelImpl("reference", reference.dequantize, _dequantize_workspace),
    samples=packed_samples("dequantize", PACKINGS),
    agreement="bits",
)
_linear = KernelOp(
    "linear_8bit",
    _spec_of_product,
    in_triton(_TRITON, "linear", _gpu_workspace),
    compiled(
        native.linear_rounded,
        _rounded_linear_workspace,
        name="native_rounded",
        numerics="rounded",
        unfit=_unfit_rounded,
    ),
    compiled(native.linear, _native_linear_workspace),
    KernelImpl("reference", reference.linear, _linear_workspace),
    samples=packed_samples("linear", PACKINGS),
    agreement="product",
)
_input_grad = KernelOp(
    "linear_8bit_input_grad",
    _spec_of_product,
    in_triton(_TRITON, "input_grad", _gpu_workspace),
    compiled(native.input_grad, _native_input_grad_workspace),
    KernelImpl("reference", reference.input_grad, _input_grad_workspace),
    samples=packed_samples("input_grad", PACKINGS),
    agreement="product",
)

quantize_8bit = define(
    "quantize_8bit(Tensor weight, ScalarType code_dtype, int block_size, bool per_tensor) -> (Tensor, Tensor)",
    Operation(_quantize, _fake_quantize, _quantize.workspace),
)
dequantize_8bit = define(
    f"dequantize_8bit({_WEIGHT}, ScalarType dtype) -> Tensor",
    Operation(_dequantize, _fake_dequantize, _dequantize.workspace),
)
linear_8bit, linear_8bit_op, linear_8bit_input_grad = define_linear(
    "8bit",
    _WEIGHT,
    forward=Operation(_linear, _fake_linear, _linear.workspace),
    input_grad=Operation(_input_grad, _fake_input_grad, _input_grad.workspace),
)
