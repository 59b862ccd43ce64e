"""The bytes of I2_S are those that Microsoft's quantizer writes on x86 with ACT_PARALLEL; the way back is exact."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bedstone as bs
from bedstone import quant
from bedstone.quant.formats import WeightFormatError, from_i2_s, to_i2_s


def _quantize_i2_s(src: np.ndarray) -> np.ndarray:
    """`quantize_i2_s` of microsoft/BitNet 16da220 under ACT_PARALLEL, line by line."""
    n = src.size
    i2_scale = max(abs(float(value)) for value in src)
    q8 = [1 if abs(float(v)) < 1e-6 else 2 if float(v) * i2_scale > 0 else 0 for v in src]
    dst = np.zeros(n // 4 + 32, np.uint8)
    for i in range(n // 128):
        for j in range(128):
            group_idx, group_pos = j // 32, j % 32
            dst[i * 32 + group_pos] |= q8[i * 128 + j] << (6 - 2 * group_idx)
    dst[n // 4 : n // 4 + 4] = np.frombuffer(np.float32(i2_scale).tobytes(), np.uint8)
    return dst


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 4), chunks=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_the_bytes_are_those_of_their_quantizer(rows, chunks, seed):
    """Their quantizer, given our dequantized weight, writes the bytes that we export."""
    weight = torch.randn(rows, 128 * chunks, generator=torch.Generator().manual_seed(seed))
    packed = bs.quantize(weight, "ternary")
    data = to_i2_s(packed)
    assert np.array_equal(data.numpy(), _quantize_i2_s(packed.dequantize().view(-1).numpy()))
    back = from_i2_s(data, weight.shape)
    assert torch.equal(back.parts["packed"], packed.parts["packed"])
    assert torch.equal(back.parts["scale"], packed.parts["scale"])


@pytest.mark.parametrize("shape", [(2, 100), (256,), (2, 2, 128)], ids=str)
def test_columns_that_do_not_divide_are_refused(shape):
    """The rule and the shape are told."""
    with pytest.raises(WeightFormatError, match="columns are a multiple of 128, not the shape"):
        to_i2_s(bs.quantize(torch.ones(shape), "ternary"))
    with pytest.raises(WeightFormatError, match="columns are a multiple of 128, not the shape"):
        from_i2_s(torch.zeros(32, dtype=torch.uint8), shape)


@pytest.mark.parametrize("scheme", [quant.Int8(), quant.Ternary("row")], ids=str)
def test_other_schemes_are_refused(scheme):
    """One scale a tensor is all that the type has."""
    with pytest.raises(WeightFormatError, match="I2_S has no form for a weight packed as"):
        to_i2_s(scheme.quantize(torch.ones(2, 128)))


def test_damaged_data_are_refused():
    """A wrong size, a code of 3 and a scale that is no number are told."""
    data = to_i2_s(bs.quantize(torch.ones(2, 128), "ternary"))
    with pytest.raises(
        WeightFormatError, match=r"An I2_S tensor of shape \(2, 128\) has 96 bytes, not torch.uint8 \(95,\)"
    ):
        from_i2_s(data[:-1], (2, 128))
    broken = data.clone()
    broken[5] = 0xFF
    with pytest.raises(WeightFormatError, match="a code of 3"):
        from_i2_s(broken, (2, 128))
    broken = data.clone()
    broken[64:68] = 255
    with pytest.raises(WeightFormatError, match="The scale behind the data is nan"):
        from_i2_s(broken, (2, 128))
