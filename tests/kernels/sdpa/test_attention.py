"""Attention is that of transformers' models: grouped heads, masks, windows, soft caps; packed documents do not see each other."""

from __future__ import annotations

import itertools
import types

import pytest
import torch
from torch.nn import functional
from torch.nn.attention.flex_attention import flex_attention
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward as gemma_attention
from transformers.models.llama.modeling_llama import eager_attention_forward as llama_attention

from bedstone.core.errors import DimensionMismatchError, InvalidConfigError, ShapeMismatchError
from bedstone.kernels import attention, attention_varlen, explain, policy
from bedstone.kernels.sdpa import flex

OPTIONS = {
    "full": {},
    "causal": {"causal": True},
    "window": {"causal": True, "window": 3},
    "softcap": {"softcap": 1.5},
    "all": {"causal": True, "window": 4, "softcap": 2.0, "scale": 0.3},
}
DTYPES = {torch.float32: 2e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def heads(dtype=torch.float32, queries=9, keys=9, groups=2):
    shapes = [(2, 4, queries, 16), (2, groups, keys, 16), (2, groups, keys, 16)]
    return [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]


def seen(queries, keys, window):
    """Row by row, as the docstring says it."""
    allowed = torch.zeros(queries, keys, dtype=torch.bool)
    for query in range(queries):
        place = query + keys - queries
        for key in range(keys):
            allowed[query, key] = key <= place and (not window or key > place - window)
    return allowed


def theirs(q, k, v, mask=None, causal=False, scale=None, window=0, softcap=0.0):
    """Of transformers, eager; which keys are hidden it takes as an additive mask."""
    allowed = seen(q.shape[2], k.shape[2], window) if causal else torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
    hidden = torch.zeros(allowed.shape, dtype=q.dtype).masked_fill(~allowed, float("-inf"))
    if mask is not None:
        hidden = hidden + (
            torch.zeros(mask.shape).masked_fill(~mask, float("-inf")) if mask.dtype is torch.bool else mask
        )
    module = types.SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], training=False, head_dim=q.shape[-1])
    call, more = (gemma_attention, {"softcap": softcap}) if softcap else (llama_attention, {})
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return call(module, q, k, v, hidden, scaling=scale, **more)[0].transpose(1, 2)


def compare(ours, expected, inputs, limit):
    torch.testing.assert_close(ours, expected, rtol=limit, atol=limit)
    above = torch.randn(ours.shape).to(ours.dtype)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, above), torch.autograd.grad(expected, inputs, above), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=5 * limit, atol=5 * limit)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("groups", [4, 1, 2])
@pytest.mark.parametrize("name", OPTIONS)
def test_is_the_attention_of_transformers(name, groups, dtype):
    """Of Llama, and where scores are capped of Gemma 2; with the gradients."""
    inputs = heads(dtype, groups=groups)
    compare(attention(*inputs, **OPTIONS[name]), theirs(*inputs, **OPTIONS[name]), inputs, DTYPES[dtype])


@pytest.mark.parametrize("softcap", [0.0, 2.0])
@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize(("queries", "keys"), [(1, 9), (3, 9), (9, 9)])
def test_the_last_query_stands_at_the_last_key(queries, keys, window, softcap):
    """As in decoding with a cache."""
    inputs = heads(queries=queries, keys=keys)
    options = {"causal": True, "window": window, "softcap": softcap}
    compare(attention(*inputs, **options), theirs(*inputs, **options), inputs, 2e-6)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 4, "softcap": 2.0}], ids=str)
@pytest.mark.parametrize("kind", ["bool", "additive"])
def test_a_mask_is_joined_with_what_is_asked_besides(kind, options):
    """True is seen; a floating mask is added. Every query sees itself, so that no row is empty."""
    inputs = heads()
    mask = torch.rand(2, 1, 9, 9) > 0.4
    mask = mask | torch.eye(9, dtype=torch.bool)
    mask = torch.randn(2, 1, 9, 9) if kind == "additive" else mask
    compare(attention(*inputs, mask=mask, **options), theirs(*inputs, mask=mask, **options), inputs, 3e-6)


@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_a_query_that_sees_nothing_reads_nothing(softcap):
    """Zeros, and gradients that are numbers."""
    inputs = heads(queries=5, keys=3)  # the first two stand before the first key
    result = attention(*inputs, causal=True, softcap=softcap)
    assert torch.equal(result[:, :, :2], torch.zeros(2, 4, 2, 16))
    assert (result[:, :, 2:] != 0).any(-1).all()
    assert all(each.isfinite().all() for each in torch.autograd.grad(result.sum(), inputs))


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_are_those_of_differences(name):
    """In float64."""
    inputs = [torch.randn(1, heads, 3, 2, dtype=torch.float64, requires_grad=True) for heads in (2, 1, 1)]
    assert torch.autograd.gradcheck(lambda *each: attention(*each, **OPTIONS[name]), inputs)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("queries", [9, 3])
def test_flex_attention_is_asked_the_same(name, queries):
    """Its rules for windows and caps; not compiled, without gradients, which is how it runs on a CPU."""
    q, k, v = (each.detach() for each in heads(queries=queries))
    options = {"causal": False, "scale": 0.25, "window": 0, "softcap": 0.0} | OPTIONS[name]
    found = flex.computed_by(flex_attention, q, k, v, None, *options.values())
    torch.testing.assert_close(found, attention(q, k, v, **options), rtol=2e-6, atol=2e-6)


LENGTHS = [[9], [1, 5, 3], [4, 0, 5], []]


@pytest.mark.parametrize("chosen", ["auto", "reference"])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_documents_are_computed_as_if_they_were_alone(name, lengths, chosen):
    """One after the other, or all under a mask; the gradients too."""
    total = sum(lengths)
    inputs = [torch.randn(total, heads, 8, requires_grad=True) for heads in (4, 2, 2)]
    starts = torch.tensor([0, *itertools.accumulate(lengths)])
    with policy(chosen):
        found = attention_varlen(*inputs, starts, **({"causal": False} | OPTIONS[name]))
    alone = [
        attention(*(part.transpose(0, 1).unsqueeze(0) for part in parts), **OPTIONS[name])[0].transpose(0, 1)
        for parts in zip(*(each.split(lengths) for each in inputs), strict=True)
    ]
    expected = torch.cat(alone) if alone else torch.zeros(0, 4, 8)
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)
    if total:
        for a, b in zip(
            torch.autograd.grad(found.sin().sum(), inputs),
            torch.autograd.grad(expected.sin().sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_no_document_hears_of_another():
    """To the bit: the first one changes, the second one's result does not."""
    q, k, v = (torch.randn(9, 2, 8) for _ in range(3))
    starts = torch.tensor([0, 4, 9])
    before = attention_varlen(q, k, v, starts)
    for each in (q, k, v):
        each[:4] = float("nan")
    assert torch.equal(attention_varlen(q, k, v, starts)[4:], before[4:])


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's tracer does it
def test_compiles_whole():
    """With every option, of batches and of documents; the second one under its mask, since lengths are data."""
    torch.compiler.reset()
    q, k, v = heads()
    starts = torch.tensor([0, 4, 9])

    def both(q, k, v):
        batch = attention(q, k, v, causal=True, window=4, softcap=2.0)
        packed = attention_varlen(*(each[0].transpose(0, 1) for each in (q, k, v)), starts, window=4)
        return batch.sum() + packed.sum()

    found, expected = torch.compile(both, backend="aot_eager", fullgraph=True)(q, k, v), both(q, k, v)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found, (q, k, v)), torch.autograd.grad(expected, (q, k, v)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_plain_attention_is_torchs():
    """To the bit, and without a mask in memory."""
    q, k, v = heads()
    expected = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    assert torch.equal(attention(q, k, v, causal=True), expected)


def test_says_why_flex_attention_is_never_taken_on_a_cpu():
    """And on a GPU only where SDPA has nothing."""
    on_cpu = explain("attention", shape=(4096, 512, 64), options="causal window")
    assert str(on_cpu) == (
        "attention on cpu, float32, 4096x512x64, causal window: reference (exact)\n"
        "  not flex: it runs on cuda, not on cpu: on a CPU flex_attention has no derivative, and compiled it gave other "
        "values from run to run"
    )
    with policy("require:flex"):
        plain = {"device": "cuda", "shape": (4096, 512, 64)}
        with pytest.raises(Exception, match="SDPA computes this without a compiler"):
            explain("attention", **plain, options="causal")
        with pytest.raises(Exception, match="it takes rules, not a mask"):
            explain("attention", **plain, options="causal mask window")


def test_says_what_packed_documents_would_run_in_on_a_gpu():
    """Without one here."""
    asked = {"shape": (4096, 512, 64), "options": "causal", "device": "cuda"}
    assert explain("attention_varlen", **asked, dtype=torch.bfloat16).name == "torch_varlen"
    assert explain("attention_varlen", **asked).rejected[0] == (
        "torch_varlen",
        "it takes bfloat16, float16, not float32",
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"window": 3}, "`window` (=3) must be 0 or more, and 0 without `causal`."),
        ({"softcap": -1.0}, "`softcap` (=-1.0) must be 0 or more."),
    ],
)
def test_an_option_out_of_range_is_refused(changed, said):
    """By name and value."""
    with pytest.raises(InvalidConfigError) as caught:
        attention(*heads(), **changed)
    assert str(caught.value) == said


def test_shapes_that_do_not_fit_are_refused():
    """By the argument that does not."""
    q, k, v = heads()
    with pytest.raises(DimensionMismatchError, match="q"):
        attention(q[0], k, v)
    with pytest.raises(ShapeMismatchError, match="v"):
        attention(q, k, v[:, :, 1:])
    with pytest.raises(ShapeMismatchError, match="k"):
        attention(q, k[:1], v[:1])
    with pytest.raises(InvalidConfigError, match="`q` has 4 heads, `k` has 3"):
        attention(q, torch.ones(2, 3, 9, 16), torch.ones(2, 3, 9, 16))
    packed = torch.ones(9, 2, 8)
    with pytest.raises(ShapeMismatchError, match=r"cu_seqlens\[-1\]"):
        attention_varlen(packed, packed, packed, torch.tensor([0, 8]))
    with pytest.raises(DimensionMismatchError, match="cu_seqlens"):
        attention_varlen(packed, packed, packed, torch.tensor([[0, 9]]))
