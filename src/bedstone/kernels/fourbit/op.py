"""The operations of 4-bit weights: schemas, fakes, workspaces, derivatives. What they compute is told in `reference.py`."""

from __future__ import annotations

import math

import torch

from bedstone.kernels.fourbit import bitsandbytes, native, reference
from bedstone.kernels.fourbit.packings import PACKINGS
from bedstone.kernels.implementation import KernelImpl, KernelSpec
from bedstone.kernels.library import Operation, define, define_linear
from bedstone.kernels.native import rounded
from bedstone.kernels.native.calls import compiled
from bedstone.kernels.registry import KernelOp
from bedstone.kernels.samples import packed_samples
from bedstone.kernels.tiles import computing_dtype, product_workspace, row_alignment
from bedstone.kernels.triton.lazy import in_triton

_WEIGHT = (
    "Tensor packed, Tensor absmax, Tensor? nested_absmax, Tensor? offset, SymInt[] shape, int block_size, str code"
)
_INDEX_BYTES = 2  # an int32 a byte of two codes
_TRITON = "bedstone.kernels.fourbit.triton_calls"
_SMALL = 2**14  # tables and what belongs to single blocks


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


def _quantize_workspace(weight: torch.Tensor, block_size: int, code: str) -> int:
    del block_size
    tile = min(weight.numel(), reference.FLAT_TILE)
    converting = 3 if code == "fp4" else 0  # from ranks to codes
    return (14 + converting) * tile + _SMALL


def _quantize_absmax_workspace(absmax: torch.Tensor) -> int:
    return 24 * absmax.numel() + _SMALL


def _dequantize_workspace(packed, absmax, nested_absmax, offset, shape, block_size, code, dtype):  # noqa: ANN001, ANN202
    del packed, offset, block_size, code
    tile = min(math.prod(shape), reference.FLAT_TILE)
    return tile * (_INDEX_BYTES + (4 if dtype != torch.float32 else 0)) + _scale_bytes(absmax, nested_absmax)


def _linear_workspace(x, packed, absmax, nested_absmax, offset, shape, block_size, code, bias=None):  # noqa: ANN001, ANN202
    del packed, offset, code, bias
    rows, columns = shape
    unpack_bytes = _INDEX_BYTES + (4 if computing_dtype(x) != torch.float32 else 0)
    align = row_alignment(columns, block_size)
    product = product_workspace(x, rows, columns, align=align, unpack_bytes=unpack_bytes)
    return product + _scale_bytes(absmax, nested_absmax)


def _scale_bytes(absmax: torch.Tensor, nested_absmax: torch.Tensor | None) -> int:
    return _SMALL + (8 * absmax.numel() if nested_absmax is not None else 0)


def _native_dequantize_workspace(packed, absmax, nested_absmax, offset, shape, block_size, code, dtype):  # noqa: ANN001, ANN202
    del packed, offset, shape, block_size, code, dtype
    return _scale_bytes(absmax, nested_absmax)


def _native_linear_workspace(x, packed, absmax, nested_absmax, offset, shape, block_size, code, bias):  # noqa: ANN001, ANN202
    del packed, offset, block_size, code, bias
    rows, columns = shape
    inputs = math.prod(x.shape[:-1])
    if inputs <= native.FEW_INPUTS and columns % 2 == 0:
        return 4 * columns * (inputs + 1) + _scale_bytes(absmax, nested_absmax)
    return product_workspace(x, rows, columns, align=1 + columns % 2) + _scale_bytes(absmax, nested_absmax)


def _rounded_linear_workspace(x, packed, absmax, nested_absmax, offset, shape, block_size, code, bias):  # noqa: ANN001, ANN202
    if block_size % rounded.GROUP:
        return _native_linear_workspace(x, packed, absmax, nested_absmax, offset, shape, block_size, code, bias)
    needed = rounded.workspace(math.prod(x.shape[:-1]), shape[1])
    return needed + _scale_bytes(absmax, nested_absmax)


def _int8_linear_workspace(x, packed, absmax, nested_absmax, offset, shape, block_size, code, bias):  # noqa: ANN001, ANN202
    del packed, offset, block_size, code, bias
    inputs, columns = math.prod(x.shape[:-1]), shape[1]
    return inputs * (columns + 4 * columns // rounded.GROUP) + 4 * columns + _scale_bytes(absmax, nested_absmax)


def _native_input_grad_workspace(grad, packed, absmax, nested_absmax, offset, shape, block_size, code):  # noqa: ANN001, ANN202
    del packed, offset, block_size, code
    return product_workspace(grad, *shape, align=1 + shape[1] % 2) + _scale_bytes(absmax, nested_absmax)


def _rounded_input_grad_workspace(grad, packed, absmax, nested_absmax, offset, shape, block_size, code):  # noqa: ANN001, ANN202
    if not rounded.in_squares(shape, block_size):
        return _native_input_grad_workspace(grad, packed, absmax, nested_absmax, offset, shape, block_size, code)
    return rounded.panel_bytes(math.prod(grad.shape[:-1]), shape[0]) + _scale_bytes(absmax, nested_absmax)


def _triton_workspace(x, packed, absmax, nested_absmax, *rest):  # noqa: ANN001, ANN002, ANN202
    del packed, rest
    return x.nbytes + _scale_bytes(absmax, nested_absmax)  # an input in one piece


def _spec_of_weight(weight: torch.Tensor, block_size: int, code: str) -> KernelSpec:
    del block_size, code
    return KernelSpec(weight.device.type, weight.dtype, 0, weight.numel(), 1)


def _spec_of_dense(packed, absmax, nested_absmax, offset, shape, block_size, code, dtype):  # noqa: ANN001, ANN202
    del absmax, nested_absmax, offset, block_size, code
    return KernelSpec(packed.device.type, dtype, 0, math.prod(shape), 1)


def _spec_of_product(x, packed, absmax, nested_absmax, offset, shape, block_size, code, bias=None):  # noqa: ANN001, ANN202
    del packed, absmax, nested_absmax, offset, block_size, code, bias
    return KernelSpec.of_product(x, *shape)


_quantize = KernelOp(
    "quantize_4bit",
    _spec_of_weight,
    compiled(native.quantize, lambda *_: _SMALL),
    KernelImpl("reference", reference.quantize, _quantize_workspace),
    samples=packed_samples("quantize", PACKINGS),
    agreement="bits",
)
_dequantize = KernelOp(
    "dequantize_4bit",
    _spec_of_dense,
    bitsandbytes.DEQUANTIZE,
    in_triton(_TRITON, "dequantize", _native_dequantize_workspace),
    compiled(native.dequantize, _native_dequantize_workspace),
    KernelImpl("reference", reference.dequantize, _dequantize_workspace),
    samples=packed_samples("dequantize", PACKINGS),
    agreement="bits",
)
_linear = KernelOp(
    "linear_4bit",
    _spec_of_product,
    bitsandbytes.LINEAR,
    in_triton(_TRITON, "linear", _triton_workspace),
    compiled(
        native.linear_rounded,
        _rounded_linear_workspace,
        name="native_rounded",
        numerics="rounded",
        unfit=rounded.unfit,
    ),
    compiled(
        native.linear_int8,
        _int8_linear_workspace,
        name="native_int8",
        numerics="approximate",
        unfit=rounded.unfit_columns,
    ),
    compiled(native.linear, _native_linear_workspace),
    KernelImpl("reference", reference.linear, _linear_workspace),
    samples=packed_samples("linear", PACKINGS),
    agreement="product",
)
_input_grad = KernelOp(
    "linear_4bit_input_grad",
    _spec_of_product,
    bitsandbytes.INPUT_GRAD,
    in_triton(_TRITON, "input_grad", _triton_workspace),
    compiled(
        native.input_grad_rounded,
        _rounded_input_grad_workspace,
        name="native_rounded",
        numerics="rounded",
        unfit=rounded.unfit_input_grad,
    ),
    compiled(native.input_grad, _native_input_grad_workspace),
    KernelImpl("reference", reference.input_grad, _linear_workspace),
    samples=packed_samples("input_grad", PACKINGS),
    agreement="product",
)

quantize_4bit = define(
    "quantize_4bit(Tensor weight, int block_size, str code) -> (Tensor, Tensor)",
    Operation(_quantize, _fake_quantize, _quantize.workspace),
)
quantize_absmax = define(
    "quantize_absmax(Tensor absmax) -> (Tensor, Tensor, Tensor)",
    Operation(reference.quantize_absmax, _fake_quantize_absmax, _quantize_absmax_workspace),
)
dequantize_4bit = define(
    f"dequantize_4bit({_WEIGHT}, ScalarType dtype) -> Tensor",
    Operation(_dequantize, _fake_dequantize, _dequantize.workspace),
)
linear_4bit, linear_4bit_op, linear_4bit_input_grad = define_linear(
    "4bit",
    _WEIGHT,
    forward=Operation(_linear, _fake_linear, _linear.workspace),
    input_grad=Operation(_input_grad, _fake_input_grad, _input_grad.workspace),
)
