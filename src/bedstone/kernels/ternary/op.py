"""The operations of ternary weights: schemas, fakes, workspaces, derivatives. What they compute is told in `reference.py`."""

from __future__ import annotations

import math

import torch

from bedstone.kernels.blocks import blocks_in
from bedstone.kernels.few_rows import int8_workspace, suits_int8_linear
from bedstone.kernels.implementation import KernelImpl, KernelSpec
from bedstone.kernels.layouts import TRITS_PER_CHUNK, trit_bytes
from bedstone.kernels.library import Operation, define, define_linear
from bedstone.kernels.native import rounded
from bedstone.kernels.native.calls import compiled
from bedstone.kernels.registry import KernelOp
from bedstone.kernels.samples import packed_samples
from bedstone.kernels.ternary import native, reference
from bedstone.kernels.ternary.packings import PACKINGS
from bedstone.kernels.tiles import computing_dtype, product_workspace, rows_in_tile
from bedstone.kernels.triton.lazy import in_triton

_WEIGHT = "Tensor packed, Tensor scale, SymInt[] shape, int block_size"
_PLANE_BYTES = 1  # an int8 a trit
_UNPACK_BYTES = 3  # shifted, masked, put into order
_TRITON = "bedstone.kernels.ternary.triton_calls"
_SMALL = 2**14  # what belongs to single rows


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


def _quantize_workspace(weight, block_size, per_tensor):  # noqa: ANN001, ANN202
    rows, columns = weight.shape
    tile_rows = min(rows, rows_in_tile(columns, tile_bytes=reference.SMALL_TILE))
    packing = 8 * tile_rows * columns
    if per_tensor:
        return max(4 * weight.numel(), packing) + _SMALL
    return packing + 12 * rows * blocks_in(columns, block_size) + _SMALL


def _dequantize_workspace(packed, scale, shape, block_size, dtype):  # noqa: ANN001, ANN202
    del packed, scale, block_size
    rows, columns = shape
    tile = min(rows, rows_in_tile(columns, tile_bytes=reference.SMALL_TILE)) * columns
    return tile * (_UNPACK_BYTES + (4 if dtype != torch.float32 else 0)) + _SMALL


def _linear_workspace(x, packed, scale, shape, block_size, bias):  # noqa: ANN001, ANN202
    del block_size, bias
    (rows, columns), width = shape, 4 * packed.shape[1]
    if not reference.by_planes(x, scale):
        return product_workspace(x, rows, columns, unpack_bytes=_UNPACK_BYTES) + _SMALL
    inputs = math.prod(x.shape[:-1])
    if suits_int8_linear(x):
        tile = min(rows, rows_in_tile(packed.shape[1], tile_bytes=reference.PLANES_TILE)) * width
        return tile + int8_workspace(x, rows) + inputs * width * x.dtype.itemsize + _SMALL
    planes = x.new_empty(inputs, width, dtype=computing_dtype(x), device="meta")
    converted = x.dtype != planes.dtype
    reordering = inputs * (converted * columns + columns % TRITS_PER_CHUNK)
    multiplying = converted * inputs * rows
    product = product_workspace(planes, rows, width, unpack_bytes=_PLANE_BYTES)
    return planes.nbytes + max(reordering * planes.itemsize, multiplying * planes.itemsize + product) + _SMALL


def _input_grad_workspace(grad, packed, scale, shape, block_size):  # noqa: ANN001, ANN202
    del block_size
    (rows, columns), width = shape, 4 * packed.shape[1]
    if not reference.by_planes(grad, scale):
        return product_workspace(grad, rows, columns, unpack_bytes=_UNPACK_BYTES) + _SMALL
    dense = grad.new_empty(math.prod(grad.shape[:-1]), rows, dtype=computing_dtype(grad), device="meta")
    converted = grad.dtype != dense.dtype
    planes = len(dense) * width * dense.itemsize
    tile = product_workspace(dense, rows, width, unpack_bytes=_PLANE_BYTES)  # kept while the planes are reordered
    reordered = converted * len(dense) * columns * dense.itemsize
    return planes + converted * dense.nbytes + tile + max(dense.nbytes, reordered) + _SMALL


def _native_quantize_workspace(weight, block_size, per_tensor):  # noqa: ANN001, ANN202
    rows, columns = weight.shape
    if per_tensor:
        return 4 * weight.numel() + _SMALL
    tile = min(rows, rows_in_tile(columns, tile_bytes=reference.SMALL_TILE)) * columns
    widened = 4 * tile if weight.dtype != torch.float32 else 0
    return 4 * tile + widened + 12 * rows * blocks_in(columns, block_size) + _SMALL


def _native_dequantize_workspace(packed, scale, shape, block_size, dtype):  # noqa: ANN001, ANN202
    del packed, scale, shape, block_size, dtype
    return _SMALL


def _native_linear_workspace(x, packed, scale, shape, block_size, bias):  # noqa: ANN001, ANN202
    del packed, block_size, bias
    inputs = math.prod(x.shape[:-1])
    if inputs <= native.FEW_INPUTS and scale.shape[1] <= 1:
        return (4 * inputs * shape[1] if x.dtype != torch.float32 else 0) + _SMALL
    return product_workspace(x, *shape) + _SMALL


def _digits_workspace(x, packed, scale, shape, block_size, bias):  # noqa: ANN001, ANN202
    """Of both products of whole numbers: two bytes an input at most, sums of a band of 32 rows a thread."""
    if scale.shape[1] > 1:
        return _native_linear_workspace(x, packed, scale, shape, block_size, bias)
    inputs, columns = math.prod(x.shape[:-1]), shape[1]
    panel = rounded.workspace(inputs, columns) if columns % rounded.GROUP == 0 else 0
    chunks = 128 * (-(-columns // 128))
    digits = 2 * inputs * chunks + torch.get_num_threads() * (256 * inputs + 4 * columns) + 12 * inputs
    return max(panel, digits) + _SMALL


def _native_input_grad_workspace(grad, packed, scale, shape, block_size):  # noqa: ANN001, ANN202
    del packed, scale, block_size
    return product_workspace(grad, *shape) + _SMALL


def _gpu_workspace(first: torch.Tensor, *rest: object) -> int:
    """The first argument, if it must be brought into one piece."""
    del rest
    return first.nbytes + _SMALL


def _spec_of_weight(weight, block_size, per_tensor):  # noqa: ANN001, ANN202
    del block_size, per_tensor
    return KernelSpec(weight.device.type, weight.dtype, 0, *weight.shape)


def _spec_of_dense(packed, scale, shape, block_size, dtype):  # noqa: ANN001, ANN202
    del scale, block_size
    return KernelSpec(packed.device.type, dtype, 0, *shape)


def _spec_of_product(x, packed, scale, shape, block_size, bias=None):  # noqa: ANN001, ANN202
    del packed, scale, block_size, bias
    return KernelSpec.of_product(x, *shape)


def _unfit_rounded(spec: KernelSpec) -> str:
    """Up to a few rows of x two digits are multiplied, for which any number of columns will do."""
    return rounded.unfit(spec) if spec.inputs > rounded.FEW_ROWS else ""


_quantize = KernelOp(
    "quantize_ternary",
    _spec_of_weight,
    compiled(native.quantize, _native_quantize_workspace),
    KernelImpl("reference", reference.quantize, _quantize_workspace),
    samples=packed_samples("quantize", PACKINGS),
    agreement="bits",
)
_dequantize = KernelOp(
    "dequantize_ternary",
    _spec_of_dense,
    in_triton(_TRITON, "dequantize", _gpu_workspace),
    compiled(native.dequantize, _native_dequantize_workspace),
    KernelImpl("reference", reference.dequantize, _dequantize_workspace),
    samples=packed_samples("dequantize", PACKINGS),
    agreement="bits",
)
_linear = KernelOp(
    "linear_ternary",
    _spec_of_product,
    in_triton(_TRITON, "linear", _gpu_workspace),
    compiled(native.linear_rounded, _digits_workspace, name="native_rounded", numerics="rounded", unfit=_unfit_rounded),
    compiled(native.linear_int8, _digits_workspace, name="native_int8", numerics="approximate"),
    compiled(native.linear, _native_linear_workspace),
    KernelImpl("reference", reference.linear, _linear_workspace),
    samples=packed_samples("linear", PACKINGS),
    agreement="product",
)
_input_grad = KernelOp(
    "linear_ternary_input_grad",
    _spec_of_product,
    in_triton(_TRITON, "input_grad", _gpu_workspace),
    compiled(native.input_grad, _native_input_grad_workspace),
    KernelImpl("reference", reference.input_grad, _input_grad_workspace),
    samples=packed_samples("input_grad", PACKINGS),
    agreement="product",
)

quantize_ternary = define(
    "quantize_ternary(Tensor weight, int block_size, bool per_tensor) -> (Tensor, Tensor)",
    Operation(_quantize, _fake_quantize, _quantize.workspace),
)
dequantize_ternary = define(
    f"dequantize_ternary({_WEIGHT}, ScalarType dtype) -> Tensor",
    Operation(_dequantize, _fake_dequantize, _dequantize.workspace),
)
linear_ternary, linear_ternary_op, linear_ternary_input_grad = define_linear(
    "ternary",
    _WEIGHT,
    forward=Operation(_linear, _fake_linear, _linear.workspace),
    input_grad=Operation(_input_grad, _fake_input_grad, _input_grad.workspace),
)
