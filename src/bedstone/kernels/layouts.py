"""Every bit layout in one place: how codes of less than a byte lie in bytes, and which value a code stands for.

    layout            a byte holds                                         used by
    nibbles, high     element 2i in bits 4-7, 2i + 1 in bits 0-3           bitsandbytes, our nf4 and fp4
    nibbles, low      element i in bits 0-3, i + 16 in bits 4-7 (of 32)    GGUF Q4_0
    2 bits, chunked   bits 2p of byte i = element i + p * stride           GGUF TQ2_0 (stride 32), our ternary
    2 bits, reversed  the same with the pairs of bits of a byte reversed   Microsoft's I2_S on x86
    2 bits, rows      bits 2p of byte (i, j) = row i + p * rows / 4        transformers' BitNet
    base 243          five trits, most significant first, ceil(v * 256 / 243)    GGUF TQ1_0

Codes are `uint8` tensors; a trit t is stored as t + 1. All functions run on any device and keep it.
"""

from __future__ import annotations

import functools

import torch

from bedstone.core.errors import ShapeMismatchError

# --- code tables ---------------------------------------------------------------------------------

NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""NormalFloat4: quantiles of a normal distribution, sorted, not symmetric (Dettmers et al., QLoRA, 2023, appendix E)."""

_FP4_MAGNITUDES = (0.0, 0.0625 / 12, 8 / 12, 12 / 12, 4 / 12, 6 / 12, 2 / 12, 3 / 12)
FP4 = (*_FP4_MAGNITUDES, *(-value for value in _FP4_MAGNITUDES))
"""bitsandbytes' FP4: bit 3 is the sign; the magnitudes stand in the order of its own encoding, not of E2M1."""

CODE_TABLES = {"nf4": NF4, "fp4": FP4}
"""The 16-entry tables by name: code to value."""

TRITS_PER_CHUNK = 128
"""Elements of one full chunk of the 2-bit layout: 32 bytes, as in GGUF's TQ2_0."""


@functools.cache
@torch.inference_mode(mode=False)  # kept for later calls, which may train
def code_table(name: str, device: torch.device) -> torch.Tensor:
    """Return the values of the 16 codes of a 4-bit table.

    Args:
        name: A key of `CODE_TABLES`.
        device: Where the table must lie; it is made once a device.

    Returns:
        float32 `[16]`; shared, so do not write to it.

    >>> code_table("nf4", torch.device("cpu"))[[0, 7, 15]]
    tensor([-1.,  0.,  1.])
    """
    return torch.tensor(CODE_TABLES[name], dtype=torch.float32, device=device)


@functools.cache
@torch.inference_mode(mode=False)  # kept for later calls, which may train
def pair_table(name: str, device: torch.device) -> torch.Tensor:
    """Return both values of each of the 256 bytes of the high-first nibble layout, two float32 seen as one float64.

    One look-up a byte then fetches two neighbours, bit for bit.

    Args:
        name: A key of `CODE_TABLES`.
        device: Where the table must lie.

    Returns:
        float64 `[256]`: the bits of float32 `[256, 2]`.

    >>> pair_table("nf4", torch.device("cpu")).view(torch.float32).view(256, 2)[0x7F]
    tensor([0., 1.])
    """
    table, byte = code_table(name, device), torch.arange(256, device=device)
    return torch.stack([table[byte >> 4], table[byte & 15]], dim=1).contiguous().view(torch.float64).view(256)


# --- nibbles -------------------------------------------------------------------------------------


def pack_nibbles(codes: torch.Tensor, *, pad: int = 0) -> torch.Tensor:
    """Pack 4-bit codes two a byte, the first in the high nibble (bitsandbytes).

    Args:
        codes: uint8 `[n]`, 0 to 15; contiguous.
        pad: The code in the low nibble behind an odd last one.

    Returns:
        uint8 `[ceil(n / 2)]`.

    >>> pack_nibbles(torch.tensor([1, 2, 15], dtype=torch.uint8)).tolist()
    [18, 240]
    """
    if codes.numel() % 2:
        codes = torch.nn.functional.pad(codes, (0, 1), value=pad)
    return (codes[0::2] << 4) | codes[1::2]


def unpack_nibbles(packed: torch.Tensor, count: int) -> torch.Tensor:
    """Return the codes that `pack_nibbles` packed.

    Args:
        packed: uint8 `[ceil(count / 2)]`.
        count: How many codes.

    Returns:
        uint8 `[count]`.

    >>> unpack_nibbles(torch.tensor([18, 240], dtype=torch.uint8), 3).tolist()
    [1, 2, 15]
    """
    return torch.stack([packed >> 4, packed & 15], dim=1).view(-1)[:count]


def pack_nibbles_low(codes: torch.Tensor) -> torch.Tensor:
    """Pack blocks of 32 4-bit codes as GGUF's Q4_0 does: code i in the low nibble of byte i, code i + 16 in the high one.

    Args:
        codes: uint8 `[blocks, 32]`, 0 to 15.

    Returns:
        uint8 `[blocks, 16]`.

    >>> pack_nibbles_low(torch.arange(32, dtype=torch.uint8).remainder(16).view(1, 32))[0, :3].tolist()
    [0, 17, 34]
    """
    return codes[:, :16] | (codes[:, 16:] << 4)


def unpack_nibbles_low(packed: torch.Tensor) -> torch.Tensor:
    """Return the codes that `pack_nibbles_low` packed.

    Args:
        packed: uint8 `[blocks, 16]`.

    Returns:
        uint8 `[blocks, 32]`.

    >>> unpack_nibbles_low(torch.full((1, 16), 0x2A, dtype=torch.uint8))[0, [0, 16]].tolist()
    [10, 2]
    """
    return torch.cat([packed & 15, packed >> 4], dim=1)


# --- trits: 2 bits in chunks -----------------------------------------------------------------------


def trit_bytes(columns: int) -> int:
    """Return the bytes that a row of trits takes: 32 a chunk of 128, and a quarter of what is left, rounded up.

    >>> trit_bytes(576), trit_bytes(3)
    (144, 1)
    """
    full = columns // TRITS_PER_CHUNK  # not divmod: the number may be symbolic
    return full * (TRITS_PER_CHUNK // 4) + -(-(columns - full * TRITS_PER_CHUNK) // 4)


def pack_trits(codes: torch.Tensor) -> torch.Tensor:
    """Pack rows of 2-bit codes in the chunked layout of GGUF's TQ2_0; the last, shorter chunk has a shorter stride.

    Bits 2p of byte i of a chunk hold its element `i + p * stride`; stride is 32, in a last chunk of r elements `ceil(r / 4)`.

    Args:
        codes: uint8 `[rows, columns]`, each 0 to 3.

    Returns:
        uint8 `[rows, trit_bytes(columns)]`; codes beyond a row's end are 0.

    >>> pack_trits(torch.tensor([[0, 1, 2, 1, 2]], dtype=torch.uint8)).tolist()
    [[40, 5]]
    """
    columns = codes.shape[1]
    cut = columns - columns % TRITS_PER_CHUNK
    parts = [_pack_chunks(codes[:, :cut], TRITS_PER_CHUNK // 4)]
    if columns > cut:
        stride = -(-(columns - cut) // 4)
        parts.append(_pack_chunks(torch.nn.functional.pad(codes[:, cut:], (0, 4 * stride - columns + cut)), stride))
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def unpack_trits(packed: torch.Tensor, columns: int) -> torch.Tensor:
    """Return the codes that `pack_trits` packed.

    Args:
        packed: uint8 `[rows, trit_bytes(columns)]`.
        columns: Codes a row.

    Returns:
        uint8 `[rows, columns]`.

    Raises:
        ShapeMismatchError: A row has another number of bytes than `columns` codes take.

    >>> unpack_trits(torch.tensor([[40, 5]], dtype=torch.uint8), 5).tolist()
    [[0, 1, 2, 1, 2]]
    """
    expected = (packed.shape[0], trit_bytes(columns))
    if tuple(packed.shape) != expected:
        raise ShapeMismatchError(expected=expected, actual=tuple(packed.shape), argument="packed")
    cut = columns // TRITS_PER_CHUNK * (TRITS_PER_CHUNK // 4)
    parts = [_unpack_chunks(packed[:, :cut], TRITS_PER_CHUNK // 4)]
    if columns % TRITS_PER_CHUNK:
        parts.append(_unpack_chunks(packed[:, cut:], packed.shape[1] - cut)[:, : columns % TRITS_PER_CHUNK])
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def trit_planes(packed: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Return the trits of `pack_trits`, not in the order of their columns and not shifted: a mask a plane, nothing else.

    Args:
        packed: uint8 `[rows, bytes]`.
        out: uint8 `[rows * 4 * bytes]`, where they are written.

    Returns:
        int8 `[rows, 4 * bytes]`, the memory of `out`: plane p holds trit * 4^p for bits 2p of each byte.

    >>> trit_planes(torch.tensor([[0b10_01_00_10]], dtype=torch.uint8), torch.empty(4, dtype=torch.uint8)).tolist()
    [[1, -4, 0, 64]]
    """
    planes = out.view(packed.shape[0], 4, packed.shape[1])
    for p in range(4):
        torch.bitwise_and(packed, 3 << 2 * p, out=planes[:, p])
    planes.sub_(_plane_factor(torch.uint8, packed.device))  # code 1 is trit 0; bytes wrap around
    return planes.flatten(1).view(torch.int8)


def to_trit_planes(x: torch.Tensor) -> torch.Tensor:
    """Return rows of x so that their product with `trit_planes` is that with the trits: in their order, over 4^p.

    Args:
        x: `[M, columns]`; float32, float64 or bfloat16, so that the division is exact.

    Returns:
        `[M, 4 * trit_bytes(columns)]`, zero where a plane has no column.

    >>> to_trit_planes(torch.tensor([[1.0, 4.0, 32.0]]))
    tensor([[1., 1., 2., 0.]])
    """
    rows, columns = x.shape
    full, rest = divmod(columns, TRITS_PER_CHUNK)
    planes = x.new_empty(rows, 4, trit_bytes(columns))
    cut, stride = full * TRITS_PER_CHUNK, -(-rest // 4)
    whole = planes[:, :, : cut // 4].unflatten(2, (full, TRITS_PER_CHUNK // 4))
    whole.copy_(x[:, :cut].view(rows, full, 4, TRITS_PER_CHUNK // 4).transpose(1, 2))
    if rest:
        planes[:, :, cut // 4 :] = torch.nn.functional.pad(x[:, cut:], (0, 4 * stride - rest)).view(rows, 4, stride)
    return planes.div_(_plane_factor(x.dtype, x.device)).flatten(1)


def from_trit_planes(planes: torch.Tensor, columns: int) -> torch.Tensor:
    """Return the rows that `to_trit_planes` reordered, divided by 4^p once more: what a product over rows leaves behind.

    Args:
        planes: `[M, 4 * trit_bytes(columns)]`, contiguous; overwritten.
        columns: Of the result.

    >>> from_trit_planes(torch.tensor([[1.0, 4.0, 16.0, 0.0]]), 3)
    tensor([[1., 1., 1.]])
    """
    rows = planes.shape[0]
    full, rest = divmod(columns, TRITS_PER_CHUNK)
    planes = planes.view(rows, 4, trit_bytes(columns)).div_(_plane_factor(planes.dtype, planes.device))
    cut = full * TRITS_PER_CHUNK
    x = planes.new_empty(rows, columns)
    chunks = planes[:, :, : cut // 4].unflatten(2, (full, TRITS_PER_CHUNK // 4))
    x[:, :cut].view(rows, full, 4, TRITS_PER_CHUNK // 4).copy_(chunks.transpose(1, 2))
    if rest:
        x[:, cut:] = planes[:, :, cut // 4 :].flatten(1)[:, :rest]
    return x


@functools.cache
@torch.inference_mode(mode=False)
def _plane_factor(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor([1, 4, 16, 64], dtype=dtype, device=device).view(4, 1)


def _pack_chunks(codes: torch.Tensor, stride: int) -> torch.Tensor:
    rows, columns = codes.shape
    quarter = codes.reshape(rows, columns // (4 * stride), 4, stride)
    packed = quarter[:, :, 0] | (quarter[:, :, 1] << 2) | (quarter[:, :, 2] << 4) | (quarter[:, :, 3] << 6)
    return packed.reshape(rows, columns // 4)


def _unpack_chunks(packed: torch.Tensor, stride: int) -> torch.Tensor:
    rows = packed.shape[0]
    chunks = packed.reshape(rows, packed.shape[1] // stride, 1, stride)
    shift = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=packed.device).view(1, 1, 4, 1)
    codes = (chunks >> shift) & 3
    return codes.reshape(rows, codes.shape[1] * 4 * stride)


# --- trits: other layouts ----------------------------------------------------------------------------


def only_trits(packed: torch.Tensor) -> bool:
    """Tell whether no 2-bit code of any layout is 3, which stands for no trit.

    Args:
        packed: uint8, any shape.

    >>> only_trits(torch.tensor([0b10_01_00_10], dtype=torch.uint8)), only_trits(torch.tensor([0b11], dtype=torch.uint8))
    (True, False)
    """
    return not bool((packed & (packed >> 1) & 0b01_01_01_01).any())


def reverse_pairs(packed: torch.Tensor) -> torch.Tensor:
    """Reverse the four pairs of bits of each byte: the chunked layout of rows of whole chunks becomes I2_S, and back.

    I2_S, as Microsoft's BitNet has it on x86 with ACT_PARALLEL, puts the first 32 of 128 elements in bits 6 and 7, GGUF's
    TQ2_0 and we in bits 0 and 1.

    Args:
        packed: uint8, any shape.

    References:
        `quantize_i2_s` in https://github.com/microsoft/BitNet/blob/16da220/src/ggml-bitnet-mad.cpp.

    >>> reverse_pairs(torch.tensor([0b00_01_10_11], dtype=torch.uint8)).item() == 0b11_10_01_00
    True
    """
    return (packed << 6) | ((packed & 0b1100) << 2) | ((packed >> 2) & 0b1100) | (packed >> 6)


def pack_trit_rows(codes: torch.Tensor) -> torch.Tensor:
    """Pack 2-bit codes of four rows a byte, as transformers' BitNet does: bits 2p of row i hold row `i + p * rows / 4`.

    Args:
        codes: uint8 `[rows, columns]`, each 0 to 3.

    Returns:
        uint8 `[rows / 4, columns]`.

    Raises:
        ShapeMismatchError: `rows` is not a multiple of 4; that layout would add rows.

    >>> pack_trit_rows(torch.tensor([[0], [1], [2], [1]], dtype=torch.uint8)).tolist()
    [[100]]
    """
    rows, columns = codes.shape
    if rows % 4:
        raise ShapeMismatchError(expected=("a multiple of 4", columns), actual=(rows, columns), argument="codes")
    first, second, third, fourth = codes.view(4, rows // 4, columns)
    return first | (second << 2) | (third << 4) | (fourth << 6)


def unpack_trit_rows(packed: torch.Tensor) -> torch.Tensor:
    """Return the codes that `pack_trit_rows` packed.

    Args:
        packed: uint8 `[rows / 4, columns]`.

    Returns:
        uint8 `[rows, columns]`.

    >>> unpack_trit_rows(torch.tensor([[100]], dtype=torch.uint8)).tolist()
    [[0], [1], [2], [1]]
    """
    return torch.cat([(packed >> shift) & 3 for shift in (0, 2, 4, 6)])


_BASE243_RUNS = ((0, 5, 32), (160, 5, 16), (240, 4, 4))
"""Where a run of TQ1_0's 256 elements begins, how many trits a byte has, and how far apart they stand."""


def pack_base243(codes: torch.Tensor) -> torch.Tensor:
    """Pack blocks of 256 trits as GGUF's TQ1_0 does: five a byte as the digits of a number v < 243, stored as ceil(256 v / 243).

    The stored byte is v as a fraction of 256, so that a digit is had by one multiplication: times 3, bits 8 and 9. Elements 0 to
    159 stand 32 apart in 32 bytes, 160 to 239 stand 16 apart in 16 bytes, the last 16 stand 4 apart in 4 bytes, four a byte.

    Args:
        codes: uint8 `[blocks, 256]`, 0 to 2.

    Returns:
        uint8 `[blocks, 52]`.

    References:
        `quantize_row_tq1_0_ref` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c.

    >>> pack_base243(torch.ones(1, 256, dtype=torch.uint8))[0, [0, 51]].tolist()  # ceil(121 * 256 / 243), ceil(120 * 256 / 243)
    [128, 127]
    """
    packed = []
    for start, digits, stride in _BASE243_RUNS:
        run = codes[:, start : start + digits * stride].reshape(-1, digits, stride).int()
        value = torch.zeros_like(run[:, 0])
        for place in range(5):
            value = value * 3 + (run[:, place] if place < digits else 0)
        packed.append((value * 256 + 242) // 243)
    return torch.cat(packed, dim=1).to(torch.uint8)


def unpack_base243(packed: torch.Tensor) -> torch.Tensor:
    """Return the codes that `pack_base243` packed.

    Args:
        packed: uint8 `[blocks, 52]`.

    Returns:
        uint8 `[blocks, 256]`.

    >>> unpack_base243(torch.full((1, 52), 128, dtype=torch.uint8)).unique().tolist()
    [1]
    """
    codes, first = [], 0
    for _, digits, stride in _BASE243_RUNS:
        run = packed[:, first : first + stride].int()
        codes += [((run * 3**place % 256) * 3) >> 8 for place in range(digits)]
        first += stride
    return torch.cat(codes, dim=1).to(torch.uint8)
