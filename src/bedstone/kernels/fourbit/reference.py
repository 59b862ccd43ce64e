"""Four bits and one scale a block, in plain torch, bit for bit as bitsandbytes has it.

The weight is read flat, row after row, in blocks of `block_size` (an even number) elements that run on across rows; the last
one may be shorter. A block is divided by its largest magnitude (absmax) and each quotient takes the nearest entry of a
16-entry table; a tie takes the lower one. With nested scales ("double quantization") the absmax itself, minus its mean, is
kept as one byte of a non-linear 8-bit table with one float32 for 256 of them.

    code(x)  = number of midpoints between sorted table entries that lie below x / absmax
    x        = table[code] * absmax,    absmax = dynamic[byte] * nested_absmax + offset

References:
    Dettmers, Pagnoni, Holtzman, Zettlemoyer: QLoRA, 2023, https://arxiv.org/abs/2305.14314.
    Dettmers, Lewis, Shleifer, Zettlemoyer: 8-bit Optimizers via Block-wise Quantization, 2021 (the dynamic table).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from bedstone.core.memory import workspace_buffer
from bedstone.kernels import layouts
from bedstone.kernels.blocks import scale_blocks_
from bedstone.kernels.memory import empty_output
from bedstone.kernels.tiles import TiledWeight, row_alignment, tiled_input_grad, tiled_linear

if TYPE_CHECKING:
    from collections.abc import Iterator

NESTED_BLOCK = 256
FLAT_TILE = 2**19
"""Elements that are packed or unpacked at a time."""
_PLACES = 2**16 - 1
_SMALLEST = 1e-38  # what bitsandbytes divides by in place of a smaller absmax


def quantize(weight: torch.Tensor, block_size: int, code: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return packed codes uint8 `[ceil(n / 2)]` and absmax float32 `[ceil(n / block_size)]`."""
    flat = weight.detach().reshape(-1)
    count = flat.numel()
    packed = torch.empty(-(-count // 2), dtype=torch.uint8, device=flat.device)
    absmax = torch.empty(-(-count // block_size), dtype=torch.float32, device=flat.device)
    for start, stop in _flat_tiles(count, block_size):
        scaled = workspace_buffer(stop - start, torch.float32, flat.device, "scaled")
        _scale_to_unit(flat[start:stop], absmax[start // block_size : -(-stop // block_size)], block_size, scaled)
        packed[start // 2 : -(-stop // 2)] = _packed_codes(scaled, code)
    return packed, absmax


def quantize_absmax(absmax: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the nested form of absmax: bytes `[blocks]`, their absmax `[ceil(blocks / 256)]`, and the offset `[]`."""
    offset = absmax.mean() if absmax.numel() else absmax.new_zeros(())
    centred = absmax - offset
    groups = torch.nn.functional.pad(centred, (0, -centred.numel() % NESTED_BLOCK)).view(-1, NESTED_BLOCK)
    nested = groups.abs().amax(dim=1) if groups.numel() else centred.new_empty(0)
    # bitsandbytes gives byte 0 to what has no quotient, and rounds to one of 65,536 places before it looks for the nearest.
    scaled = (groups * (1 / nested).unsqueeze(1)).nan_to_num_(nan=-1.0).clamp_(-1, 1)
    snapped = ((scaled + 1) * 0.5 * _PLACES + 0.5).floor_() * 2 / _PLACES - 1
    table = dynamic_table(absmax.device)
    codes = torch.bucketize(snapped, (table[1:] + table[:-1]) * 0.5, out_int32=True)
    return codes.view(-1)[: centred.numel()].to(torch.uint8), nested, offset


def dequantize_absmax(
    absmax: torch.Tensor, nested_absmax: torch.Tensor | None, offset: torch.Tensor | None
) -> torch.Tensor:
    """Return absmax as float32, from either form."""
    if nested_absmax is None or offset is None:
        return absmax
    values = torch.index_select(dynamic_table(absmax.device), 0, absmax.int())
    return scale_blocks_(values.view(1, -1), nested_absmax.view(1, -1), NESTED_BLOCK).view(-1).add_(offset)


def dequantize(
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested_absmax: torch.Tensor | None,
    offset: torch.Tensor | None,
    shape: list[int],
    block_size: int,
    code: str,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Return the dense tensor; the product is float32, rounded once to `dtype`."""
    out = empty_output(shape, dtype, packed.device)
    flat, scales = out.view(-1), dequantize_absmax(absmax, nested_absmax, offset)
    for start, stop in _flat_tiles(flat.numel(), block_size):
        _unpack(packed, scales, start, flat[start:stop], block_size, code)
    return out


def linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested_absmax: torch.Tensor | None,
    offset: torch.Tensor | None,
    shape: list[int],
    block_size: int,
    code: str,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Return `x @ weight.T + bias`."""
    scales = dequantize_absmax(absmax, nested_absmax, offset)
    return tiled_linear(x, _tiled(packed, scales, shape, block_size, code), bias)


def input_grad(
    grad: torch.Tensor,
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested_absmax: torch.Tensor | None,
    offset: torch.Tensor | None,
    shape: list[int],
    block_size: int,
    code: str,
) -> torch.Tensor:
    """Return `grad @ weight`."""
    scales = dequantize_absmax(absmax, nested_absmax, offset)
    return tiled_input_grad(grad, _tiled(packed, scales, shape, block_size, code))


@functools.cache
@torch.inference_mode(mode=False)
def dynamic_table(device: torch.device) -> torch.Tensor:
    """Return the 256 values of the signed dynamic 8-bit type: a decimal exponent, then a linear fraction; ascending.

    Byte i stands for the i-th value. The same construction as bitsandbytes' `create_dynamic_map(signed=True)`.
    """
    values = [0.0, 1.0]
    for exponent in range(7):
        bounds = torch.linspace(0.1, 1, 2**exponent + 1, dtype=torch.float32, device="cpu")
        means = (bounds[:-1] + bounds[1:]) / 2.0
        values += (10.0 ** (exponent - 6) * means).tolist()
        values += (-(10.0 ** (exponent - 6)) * means).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32, device=device)


# --- one tile ------------------------------------------------------------------------------------


def _flat_tiles(count: int, block_size: int) -> Iterator[tuple[int, int]]:
    step = max(FLAT_TILE // block_size, 1) * block_size
    for start in range(0, count, step):
        yield start, min(start + step, count)


def _scale_to_unit(part: torch.Tensor, absmax: torch.Tensor, block_size: int, scaled: torch.Tensor) -> None:
    """Write a flat run of blocks over their absmax into `scaled`, and the absmax."""
    scaled.copy_(part)
    cut = part.numel() // block_size * block_size
    blocks, last = scaled[:cut].view(-1, block_size), scaled[cut:]
    magnitudes = workspace_buffer(part.numel(), torch.float32, part.device, "magnitudes")
    torch.abs(scaled, out=magnitudes)
    torch.amax(magnitudes[:cut].view(-1, block_size), dim=1, out=absmax[: len(blocks)])
    blocks.mul_((1 / absmax[: len(blocks)].clamp_min(_SMALLEST)).unsqueeze(1))
    if last.numel():  # a short block divides, and its absmax is never 0: bitsandbytes' arithmetic, kept for its bits
        absmax[-1:] = magnitudes[cut:].amax().clamp_min_(_SMALLEST)
        last.div_(absmax[-1:])
    scaled.clamp_(-1, 1)


def _packed_codes(scaled: torch.Tensor, code: str) -> torch.Tensor:
    """Return the packed codes of values within -1 ... 1; counted in float32, where a comparison is vectorised."""
    ranks = workspace_buffer(scaled.numel(), torch.float32, scaled.device, "ranks")
    above = workspace_buffer(scaled.numel(), torch.float32, scaled.device, "magnitudes")
    first, *others = midpoints(code)
    torch.gt(scaled, first, out=ranks)
    for midpoint in others:
        ranks.add_(torch.gt(scaled, midpoint, out=above))
    codes = workspace_buffer(scaled.numel(), torch.int8, scaled.device, "codes").copy_(ranks).view(torch.uint8)
    packed = layouts.pack_nibbles(codes, pad=len(others) // 2)  # the rank of 0
    return packed if code == "nf4" else _codes_of_ranks(code, packed.device).index_select(0, packed.int())


@functools.cache
def midpoints(code: str) -> tuple[float, ...]:
    """Return the 15 values between neighbours of a sorted table, each the largest that still takes the lower one."""
    ordered = torch.tensor(layouts.CODE_TABLES[code], dtype=torch.float32, device="cpu").sort().values
    return tuple(((ordered[1:] + ordered[:-1]) / 2).tolist())


@functools.cache
@torch.inference_mode(mode=False)
def _codes_of_ranks(code: str, device: torch.device) -> torch.Tensor:
    """Return, for each byte of two ranks, the byte of the two codes."""
    order = layouts.code_table(code, torch.device("cpu")).sort(stable=True).indices.to(torch.uint8)
    return ((order[:, None] << 4) | order).view(-1).to(device)


def _unpack(
    packed: torch.Tensor, scales: torch.Tensor, start: int, target: torch.Tensor, block_size: int, code: str
) -> None:
    """Write the elements from `start` on, the first of a block, into the flat `target` of any floating dtype."""
    count = target.numel()
    bytes_ = packed[start // 2 : (start + count + 1) // 2]
    direct = target.dtype is torch.float32 and count % 2 == 0
    values = target if direct else workspace_buffer(2 * bytes_.numel(), torch.float32, packed.device, "values")
    index = workspace_buffer(bytes_.numel(), torch.int32, packed.device, "index").copy_(bytes_)
    torch.index_select(layouts.pair_table(code, packed.device), 0, index, out=values.view(torch.float64))
    first, cut = start // block_size, count // block_size * block_size
    values[:cut].view(-1, block_size).mul_(scales[first : first + cut // block_size].unsqueeze(1))
    if count > cut:
        values[cut:].mul_(scales[first + cut // block_size])
    if not direct:
        target.copy_(values[:count])


def _tiled(packed: torch.Tensor, scales: torch.Tensor, shape: list[int], block_size: int, code: str) -> TiledWeight:
    rows, columns = shape

    def unpack(start: int, stop: int, target: torch.Tensor) -> None:
        del stop
        _unpack(packed, scales, start * columns, target.view(-1), block_size, code)

    return TiledWeight(rows, columns, unpack, align=row_alignment(columns, block_size))
