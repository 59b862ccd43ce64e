"""The rotation is that of transformers' models to the bit, in both layouts, and takes positions that begin anew."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.cohere.modeling_cohere import apply_rotary_pos_emb as cohere_rotation
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as llama_rotation

from bedstone.core.errors import DimensionMismatchError, InvalidConfigError, ShapeMismatchError
from bedstone.kernels import explain, rope
from bedstone.kernels.rotary.liger import own_memory


def heads(dtype, tokens=7, columns=16):
    return torch.randn(2, 4, tokens, columns).to(dtype), torch.randn(2, 2, tokens, columns).to(dtype)


def tables(dtype, positions, columns=16):
    """As a Llama makes them."""
    config = LlamaConfig(hidden_size=4 * columns, num_attention_heads=4)
    return LlamaRotaryEmbedding(config)(torch.empty(1, dtype=dtype), positions)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_is_the_rotation_of_llama_to_the_bit(dtype):
    """Result and gradients, for positions of each row of the batch."""
    q, k = (each.requires_grad_() for each in heads(dtype))
    cos, sin = tables(dtype, torch.stack([torch.arange(7), torch.arange(7) + 5]))
    ours, theirs = rope(q, k, cos, sin), llama_rotation(q, k, cos, sin)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype is b.dtype
        assert torch.equal(a, b)
    gradients = (torch.autograd.grad((pair[0].sum(), pair[1].sum()), (q, k)) for pair in (ours, theirs))
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_neighbours_are_turned_as_in_cohere():
    """The other layout."""
    q, k = heads(torch.float32)
    angles = torch.arange(7.0).outer(torch.logspace(0, -3, 8)).repeat_interleave(2, 1).unsqueeze(0)
    ours = rope(q, k, angles.cos(), angles.sin(), interleaved=True)
    for a, b in zip(ours, cohere_rotation(q, k, angles.cos(), angles.sin()), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(ours[0], rope(q, k, angles.cos(), angles.sin())[0])


@pytest.mark.parametrize("ids", [torch.tensor([0, 1, 2, 0, 1, 2, 3]), torch.tensor([[0, 1, 2, 3, 4, 5, 6], [3, 4, 0, 1, 0, 1, 2]])], ids=["row", "batch"])  # fmt: skip
def test_position_ids_choose_rows_of_the_tables(ids):
    """A packed row begins anew with each document."""
    q, k = heads(torch.float32)
    cos, sin = (each[0] for each in tables(torch.float32, torch.arange(12).unsqueeze(0)))
    expected = llama_rotation(q, k, *tables(torch.float32, ids.expand(2, 7)))
    for a, b in zip(rope(q, k, cos, sin, ids), expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("interleaved", [False, True])
def test_gradients_are_those_of_differences(interleaved):
    """In float64, of q, k and the tables."""
    inputs = [torch.randn(1, 2, 3, 4), torch.randn(1, 1, 3, 4), torch.randn(3, 4), torch.randn(3, 4)]
    inputs = [each.double().requires_grad_() for each in inputs]
    assert torch.autograd.gradcheck(lambda *each: rope(*each, interleaved=interleaved), inputs)


def test_the_rotation_back_is_the_derivative():
    """What the bridge to Liger takes for granted."""
    (q, k), (cos, sin) = heads(torch.float64), tables(torch.float64, torch.arange(7).unsqueeze(0))
    q.requires_grad_()
    above = torch.randn_like(q)
    (found,) = torch.autograd.grad(rope(q, k, cos, sin)[0], q, above)
    torch.testing.assert_close(found, rope(above, k, cos, -sin)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3)], ids=str)
def test_what_is_handed_to_a_kernel_that_turns_in_place_is_a_copy(order):
    """However the heads lie: walked as `[B, S, H, D]` it has no gaps, and writing to it leaves the original alone."""
    x = torch.randn(2, 3, 4, 6).permute(order)
    kept, mine = x.clone(), own_memory(x)
    assert torch.equal(mine, x)
    assert mine.transpose(1, 2).is_contiguous()
    mine.zero_()
    assert torch.equal(x, kept)


def test_says_what_keeps_liger_away():
    """Each option that it does not have."""
    for options, reason in {
        "interleaved": "Liger turns halves, not neighbours",
        "mixed": "it takes cos and sin in the dtype of q",
        "tables": "it has no derivative in cos and sin",
    }.items():
        assert explain("rope", device="cuda", options=options).rejected == (("liger", reason),)


def test_refuses_what_does_not_fit():
    """By name and value."""
    (q, k), (cos, sin) = heads(torch.float32), tables(torch.float32, torch.arange(7).unsqueeze(0))
    with pytest.raises(DimensionMismatchError, match="q"):
        rope(q[0], k, cos, sin)
    with pytest.raises(ShapeMismatchError, match="k"):
        rope(q, k[:, :, 1:], cos, sin)
    with pytest.raises(ShapeMismatchError, match="cos"):
        rope(q, k, cos[:, 1:], sin)
    with pytest.raises(DimensionMismatchError, match="cos"):
        rope(q, k, cos, sin, torch.arange(7))
    with pytest.raises(InvalidConfigError, match="15 columns a head; pairs want an even number"):
        rope(q[..., 1:], k[..., 1:], cos[..., 1:], sin[..., 1:])
