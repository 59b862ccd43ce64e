"""Blocks of GGUF, written here and read by the package `gguf`, have our codes and our scales rounded to a half; and back, exactly."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st

from bedstone import quant
from bedstone.kernels import layouts
from bedstone.quant.formats import WeightFormatError
from bedstone.quant.formats.gguf_blocks import (
    BLOCK_BYTES,
    BLOCK_ELEMENTS,
    decode_dense,
    encode_dense,
    encode_packed,
    holds_exactly,
    unpack_blocks,
)

TERNARY = [quant.Ternary(), quant.Ternary("row"), quant.Ternary("block", 256), quant.Ternary("block", 768)]
seeds = st.integers(0, 2**16)


def _normal(shape, seed, scale=0.02):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def _rounded(scale):
    return scale.half().float()


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 4), blocks=st.integers(1, 5), seed=seeds)
def test_q8_0_has_our_codes(rows, blocks, seed):
    """`gguf` reads code times half-rounded scale, element by element."""
    packed = quant.Int8("block", 32).quantize(_normal((rows, 32 * blocks), seed))
    data = encode_packed(packed, "q8_0")
    theirs = dequantize(data.numpy(), GGMLQuantizationType.Q8_0)
    scale = _rounded(packed.parts["absmax"] / 127).repeat_interleave(32, dim=1)
    assert np.array_equal(theirs, (packed.parts["codes"] * scale).numpy())


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 4), blocks=st.integers(1, 5), seed=seeds)
def test_q8_0_of_a_dense_weight_is_nearly_ours(rows, blocks, seed):
    """Their quantizer computes `x * (1 / d)`, ours `x * (127 / absmax)`: the scales are the same, a code differs by one at most."""
    weight = _normal((rows, 32 * blocks), seed)
    theirs = torch.from_numpy(quantize(weight.numpy(), GGMLQuantizationType.Q8_0)).view(rows, blocks, 34)
    ours = encode_packed(quant.Int8("block", 32).quantize(weight), "q8_0").view(rows, blocks, 34)
    assert torch.equal(ours[:, :, :2], theirs[:, :, :2])
    assert (ours[:, :, 2:].view(torch.int8).int() - theirs[:, :, 2:].view(torch.int8).int()).abs().max() <= 1


@pytest.mark.parametrize("kind", ["tq1_0", "tq2_0"])
@pytest.mark.parametrize("scheme", TERNARY, ids=str)
def test_ternary_types_have_our_trits(kind, scheme):
    """`gguf` reads the same trits times the half-rounded scale; its own quantizer, given exact trits, writes the same bytes."""
    packed = scheme.quantize(_normal((3, 1024), 5))
    data = encode_packed(packed, kind)
    ours = packed.dequantize()
    theirs = torch.from_numpy(dequantize(data.numpy(), GGMLQuantizationType[kind.upper()]))
    assert torch.equal(theirs.sign(), ours.sign())
    assert torch.equal(theirs, torch.where(ours == 0, 0.0, ours.sign() * _rounded(ours.abs())))
    assert np.array_equal(data.numpy(), quantize(ours.numpy(), GGMLQuantizationType[kind.upper()]))


@settings(max_examples=30, deadline=None)
@given(blocks=st.integers(1, 4), seed=seeds)
def test_base_243_is_theirs(blocks, seed):
    """Five trits a byte, in the order and rounding of TQ1_0; unpacking gives them back."""
    codes = torch.randint(0, 3, (blocks, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    codes[:, 0] = 2
    theirs = quantize((codes.float() - 1).numpy(), GGMLQuantizationType.TQ1_0)[:, :52]
    assert np.array_equal(layouts.pack_base243(codes).numpy(), theirs)
    assert torch.equal(layouts.unpack_base243(layouts.pack_base243(codes)), codes)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_low_nibbles_are_theirs(seed):
    """Element i in the low nibble, i + 16 in the high one, as Q4_0 has them."""
    weight = _normal((2, 64), seed)
    data = torch.from_numpy(quantize(weight.numpy(), GGMLQuantizationType.Q4_0)).view(-1, 18)
    codes = layouts.unpack_nibbles_low(data[:, 2:])
    scale = data[:, :2].contiguous().view(torch.float16).float()
    theirs = dequantize(data.reshape(2, -1).numpy(), GGMLQuantizationType.Q4_0)
    assert np.array_equal(((codes.float() - 8) * scale).view(2, 64).numpy(), theirs)
    assert torch.equal(layouts.pack_nibbles_low(codes), data[:, 2:])


@pytest.mark.parametrize("kind", ["q8_0", "tq1_0", "tq2_0"])
def test_what_is_loaded_dequantizes_to_their_bits(kind):
    """Of any block that `gguf` writes, the packed weight has the values that `gguf` computes, and goes back to the same bytes."""
    weight = _normal((4, 512), 3) * torch.logspace(-3, 3, 4).unsqueeze(1)
    if kind != "q8_0":
        weight = quant.Ternary("block", 256).quantize(weight).dequantize()
    data = torch.from_numpy(quantize(weight.numpy(), GGMLQuantizationType[kind.upper()]))
    packed = unpack_blocks(data, kind)
    # int8 dequantizes in two products, so its last bits may differ; codes and scales do not.
    tolerance = 2.4e-7 if kind == "q8_0" else 0
    torch.testing.assert_close(packed.dequantize(), decode_dense(data, kind), rtol=tolerance, atol=0)
    assert torch.equal(encode_packed(packed, kind), data)


def test_every_half_survives_as_absmax():
    """The product absmax = 127 d is exact in float32, and is d again on the way out."""
    half = torch.arange(1, 0x7C00, dtype=torch.int16).view(torch.float16)
    data = torch.zeros(half.numel(), 34, dtype=torch.uint8)
    data[:, :2] = half.view(torch.uint8).view(-1, 2)
    data[:, 2:] = torch.arange(-16, 16, dtype=torch.int8).view(torch.uint8)
    packed = unpack_blocks(data, "q8_0")
    assert torch.equal(packed.parts["absmax"].double().view(-1), half.double() * 127)
    assert torch.equal(encode_packed(packed, "q8_0"), data)


@pytest.mark.parametrize(
    ("scheme", "kind", "exact"),
    [
        (quant.Int8("block", 32), "q8_0", True),
        (quant.Int8("block", 64), "q8_0", False),
        (quant.Int8("row"), "q8_0", False),
        (quant.NF4(block_size=32), "q4_0", False),
        (quant.Ternary("block", 512), "tq2_0", True),
        (quant.Ternary("block", 64), "tq2_0", False),
        (quant.Ternary(), "q8_0", False),
        (quant.Int8("block", 32), "tq1_0", False),
    ],
    ids=str,
)
def test_only_what_is_exact_counts_as_exact(scheme, kind, exact):
    """Block sizes and granularities that a type does not have are not taken for it."""
    assert holds_exactly(scheme, kind) is exact


def test_sizes_are_those_of_gguf():
    """Elements and bytes of a block."""
    from gguf.constants import GGML_QUANT_SIZES

    for kind, elements in BLOCK_ELEMENTS.items():
        assert GGML_QUANT_SIZES[GGMLQuantizationType[kind.upper()]] == (elements, BLOCK_BYTES[kind])


def test_a_scale_that_no_half_holds_is_refused():
    """The weight and the scale are told, for packed and for dense ones."""
    huge = torch.full((1, 32), 1e7)
    with pytest.raises(
        WeightFormatError, match=r"A scale of a\.weight is 78740\.2; GGUF keeps scales as halves, up to 65,504"
    ):
        encode_packed(quant.Int8("block", 32).quantize(huge), "q8_0", name="a.weight")
    with pytest.raises(WeightFormatError, match=r"A scale of a\.weight"):
        encode_dense(huge, "q4_0", name="a.weight")


def test_a_code_of_three_is_refused():
    """It stands for no trit."""
    data = encode_packed(quant.Ternary().quantize(torch.ones(1, 256)), "tq2_0")
    data[0, 7] = 0xFF
    with pytest.raises(WeightFormatError, match=r"a\.weight holds a code of 3"):
        unpack_blocks(data, "tq2_0", name="a.weight")
