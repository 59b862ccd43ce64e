"""Estimates are exact integers: equal to their formulas for any size, and to what torch allocates where it can be seen."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from bedstone.core.dtype import bits_per_element
from bedstone.core.errors import InvalidConfigError, UnknownNameError
from bedstone.core.memory import estimate_attention_memory, estimate_tensor_bytes

ALL = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)
HUGE = st.integers(0, 2**80)


@given(st.lists(HUGE, max_size=6), st.sampled_from(ALL))
def test_a_tensor_takes_its_packed_bits_however_large(shape, dtype):
    bits = math.prod(shape) * bits_per_element(dtype)
    assert estimate_tensor_bytes(shape, dtype) == math.ceil(Fraction(bits, 8))


@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [
        ((), torch.float32, 4),
        ((0, 5), torch.float32, 0),
        ((2**32, 2**32), torch.float32, 2**66),  # the original: 0
        ((2**62 + 1,), torch.float32, 2**64 + 4),  # the original: 4
        ((5,), torch.uint4, 3),  # the original: 0
        ((9,), torch.uint1, 2),
        ((4,), torch.int6, 3),
        ((7,), torch.float8_e5m2, 7),
    ],
)
def test_sizes_that_the_original_got_wrong(shape, dtype, size):
    assert estimate_tensor_bytes(shape, dtype) == size


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.bool, torch.float8_e4m3fn, torch.complex64], ids=str
)
def test_a_plain_tensor_takes_what_torch_allocates(dtype):
    assert estimate_tensor_bytes((3, 5), dtype) == torch.empty(3, 5, dtype=dtype).untyped_storage().nbytes()


@pytest.mark.parametrize("size", [-3, True, False, 2.0, "4", None])
def test_a_dimension_that_is_not_one_is_named(size):
    with pytest.raises(InvalidConfigError) as raised:
        estimate_tensor_bytes((2, size), torch.float32)
    assert str(raised.value) == f"`shape[1]` (={size!r}) must be a whole number of at least 0."
    assert (raised.value.argument, raised.value.value) == ("shape[1]", size)


def test_the_documents_examples_hold():
    assert estimate_attention_memory(1, 1, 4, 2, torch.float32) == 192
    assert estimate_attention_memory(1, 32, 4096, 128, torch.bfloat16) == 1_207_959_552
    assert estimate_attention_memory(1, 1, 2**32, 64, torch.float32) == 4 * 2**32 * (4 * 64 + 2**32)


@given(HUGE, HUGE, HUGE, HUGE, st.sampled_from([torch.float16, torch.float32, torch.float8_e5m2, torch.float64]))
def test_attention_is_the_documents_formula_by_default(b, h, s, d, dtype):
    assert estimate_attention_memory(b, h, s, d, dtype) == b * h * s * dtype.itemsize * (4 * d + s)


@given(
    st.integers(1, 9), st.integers(1, 5), st.integers(1, 4), st.integers(1, 50), st.integers(1, 50), st.integers(1, 9)
)
def test_fewer_kv_heads_and_shorter_keys_never_cost_more(b, g, group, s, t, d):
    grouped = {"num_kv_heads": g, "kv_seq_len": min(s, t)}
    for options in ({"mode": mode, "backward": back} for mode in ("linear", "materialized") for back in (False, True)):
        full = estimate_attention_memory(b, g * group, s, d, "f32", **options)
        assert estimate_attention_memory(b, g * group, s, d, "f32", **grouped, **options) <= full
        same = {"num_kv_heads": g * group, "kv_seq_len": s}
        assert estimate_attention_memory(b, g * group, s, d, "f32", **same, **options) == full


SIZES = {"batch_size": 2, "num_heads": 4, "seq_len": 64, "head_dim": 16}


@pytest.mark.parametrize("argument", [*SIZES, "kv_seq_len"])
@pytest.mark.parametrize("value", [-1, True, 1.0])
def test_a_wrong_size_is_named(argument, value):
    with pytest.raises(InvalidConfigError) as raised:
        estimate_attention_memory(**{**SIZES, "dtype": "f32", argument: value})
    assert str(raised.value) == f"`{argument}` (={value!r}) must be a whole number of at least 0."


def test_kv_heads_must_divide_the_heads():
    with pytest.raises(InvalidConfigError) as raised:
        estimate_attention_memory(1, 32, 8, 8, "f32", num_kv_heads=5)
    assert str(raised.value) == (
        "`num_kv_heads` (=5) must divide `num_heads` (=32). "
        "Each head of keys and values serves the same number of query heads."
    )
    with pytest.raises(InvalidConfigError, match=r"`num_kv_heads` \(=0\) must be a whole number of at least 1\."):
        estimate_attention_memory(1, 32, 8, 8, "f32", num_kv_heads=0)


def test_an_unknown_mode_is_refused():
    with pytest.raises(UnknownNameError) as raised:
        estimate_attention_memory(1, 1, 1, 1, "f32", mode="liner")
    assert (
        str(raised.value) == "No attention mode is called 'liner'. Did you mean 'linear'? Known: linear, materialized."
    )


def inputs(g, s, t, d=16, dtype=torch.float32, *, grad=False):
    make = lambda heads, length: torch.randn(2, heads, length, d, dtype=dtype, requires_grad=grad)  # noqa: E731
    return make(4, s), make(g, t), make(g, t)


LENGTHS = [(64, 96, 16), (8, 8, 64), (32, 200, 8)]  # the second is short: there the end of backward is the peak


@pytest.mark.parametrize(("s", "t", "d"), LENGTHS)
def test_materialized_attention_takes_what_torch_allocates_forward(peak_bytes, s, t, d):
    def forward():
        q, k, v = inputs(4, s, t, d)
        scores = q @ k.transpose(-2, -1)
        return q, k, v, torch.softmax(scores, -1, out=scores) @ v

    assert peak_bytes(forward) == estimate_attention_memory(2, 4, s, d, "f32", kv_seq_len=t)


@pytest.mark.parametrize(("s", "t", "d"), LENGTHS)
@pytest.mark.parametrize("g", [4, 2])
def test_materialized_attention_takes_what_torch_allocates_with_backward(peak_bytes, s, t, d, g):
    def step():
        q, k, v = inputs(g, s, t, d, grad=True)
        grouped = q.view(2, g, -1, d)  # queries that share keys stand below each other
        out = torch.softmax(grouped @ k.transpose(-2, -1), -1) @ v
        out_grad = torch.randn_like(out)
        return q, k, v, out, out_grad, torch.autograd.grad(out, (q, k, v), out_grad)

    expected = estimate_attention_memory(2, 4, s, d, "f32", num_kv_heads=g, kv_seq_len=t, backward=True)
    assert peak_bytes(step) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("g", [4, 2])
def test_linear_attention_keeps_what_fused_attention_saves(dtype, g):
    saved = []

    def note(tensor):
        saved.append(tensor.nbytes)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        out = functional.scaled_dot_product_attention(*inputs(g, 64, 96, dtype=dtype, grad=True), enable_gqa=g != 4)
    assert out.grad_fn.name() == "ScaledDotProductFlashAttentionForCpuBackward0"
    assert sum(saved) == estimate_attention_memory(2, 4, 64, 16, dtype, num_kv_heads=g, kv_seq_len=96, mode="linear")


@pytest.mark.parametrize("length", [512, 1024, 2048])
def test_linear_attention_with_backward_takes_what_torch_allocates_but_for_its_tiles(peak_bytes, length):
    def step():
        q, k, v = inputs(4, length, length, 64, grad=True)
        out = functional.scaled_dot_product_attention(q, k, v)
        out_grad = torch.randn_like(out)
        return q, k, v, out, out_grad, torch.autograd.grad(out, (q, k, v), out_grad)

    tiles = torch.get_num_threads() * 2 * 2**20  # fixed blocks that the kernel works in, whatever the length
    estimate = estimate_attention_memory(2, 4, length, 64, "f32", mode="linear", backward=True)
    assert -0.02 * estimate <= peak_bytes(step) - estimate <= tiles
    assert estimate < estimate_attention_memory(2, 4, length, 64, "f32", backward=True) / 2
