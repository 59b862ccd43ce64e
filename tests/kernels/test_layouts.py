"""Every layout gives back the codes that went in, and lies in bytes as its format says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.errors import ShapeMismatchError
from bedstone.kernels import layouts


def codes_below(limit, *shape):
    return torch.randint(0, limit, shape, dtype=torch.uint8)


@given(st.integers(0, 200), st.integers(0, 15))
def test_nibbles_come_back(count, pad):
    """Any number of codes, odd ones too; the low nibble behind the last one is the padding."""
    codes = codes_below(16, count)
    packed = layouts.pack_nibbles(codes, pad=pad)
    assert packed.shape == (-(-count // 2),)
    assert torch.equal(layouts.unpack_nibbles(packed, count), codes)
    if count % 2:
        assert packed[-1] & 15 == pad


@given(st.integers(0, 5), st.integers(0, 700))
def test_trits_come_back(rows, columns):
    """Full chunks of 128, one that is not full, none; any code of two bits."""
    codes = codes_below(4, rows, columns)
    packed = layouts.pack_trits(codes)
    assert packed.shape == (rows, layouts.trit_bytes(columns))
    assert torch.equal(layouts.unpack_trits(packed, columns), codes)


def test_a_full_chunk_is_gguf_tq2_0():
    """The payload of two TQ2_0 blocks, by the quantizer of the `gguf` package."""
    quants = pytest.importorskip("gguf.quants")
    from gguf import GGMLQuantizationType

    codes = codes_below(3, 2, 256)
    weight = codes.float() - 1
    blocks = quants.quantize(weight.numpy(), GGMLQuantizationType.TQ2_0)
    assert torch.equal(layouts.pack_trits(codes), torch.from_numpy(blocks[:, :64].copy()))


def test_a_row_of_another_length_is_refused():
    """The message gives both shapes."""
    with pytest.raises(ShapeMismatchError) as refused:
        layouts.unpack_trits(torch.zeros(2, 3, dtype=torch.uint8), 5)
    assert str(refused.value) == "`packed` has shape (2, 3), expected (2, 2)."


def test_the_tables_are_those_of_bitsandbytes(bnb, code):
    """Value for value, and the pair table holds both values of every byte."""
    device = torch.device("cpu")
    table = layouts.code_table(code, device)
    assert torch.equal(table, bnb.get_4bit_type(code, device="cpu"))
    pairs = layouts.pair_table(code, device).view(torch.float32).view(256, 2)
    for byte in range(256):
        assert pairs[byte].tolist() == [table[byte >> 4], table[byte & 15]]
