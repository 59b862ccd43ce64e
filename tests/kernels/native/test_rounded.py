"""Products with inputs rounded to 16 bits err by what was rounded away and no more, trits times bytes are exact integer sums, on every instruction set."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bedstone as bs
from bedstone.kernels import eightbit, explain, fourbit, native, policy, select, ternary
from bedstone.kernels.native import rounded

pytestmark = pytest.mark.skipif(not native.isas(), reason=native.status().reason or "-")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OUTPUT = {torch.float32: 0.0, torch.bfloat16: 2**-8, torch.float16: 2**-11}
SPACING = {torch.float32: 0.0, torch.bfloat16: 0.0, torch.float16: 2**-24}  # of subnormal outputs
SCALES = (1.0, 0.02, 1e-20)
GROUPED = st.integers(1, 9).map(lambda groups: 64 * groups)


@pytest.fixture(params=native.isas())
def isa(request):
    """Each instruction set in turn, then the best one again."""
    native.use_isa(request.param)
    yield request.param
    native.use_isa(native.isas()[0])


@st.composite
def products(draw, columns=GROUPED):
    """Weight, input with one row of outliers and one of zeros, bias; inputs from one row to several panels of rows."""
    rows, width = draw(st.integers(1, 90)), draw(columns)
    inputs = draw(st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17, 20, 35]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from(DTYPES))
    weight = torch.randn(rows, width, generator=generator) * draw(st.sampled_from(SCALES))
    x = torch.randn(inputs, width, generator=generator)
    x[0, 0], x[-1, 1:] = 100.0, 0.0
    bias = torch.randn(rows, generator=generator).to(dtype) if draw(st.booleans()) else None
    return weight, x.to(dtype), bias


def within(found, x, dense, bias, steps, what):
    """Half a step of every rounded number: of a code times its input, of an input times its code; and the rounding of the output.

    `steps` are those of the code book, `[N, K]`, and those of the inputs in units of the largest of their group.
    """
    of_codes, of_inputs = steps
    groups = x.double().abs().view(len(x), -1, 64).amax(2).repeat_interleave(64, 1)
    expected = x.double() @ dense.double().T + (0 if bias is None else bias.double())
    allowed = x.double().abs() @ (of_codes / 2).T + groups * (of_inputs / 2) @ dense.double().abs().T
    allowed = 1.01 * allowed + 1e-6 * (x.double().abs() @ dense.double().abs().T + expected.abs())
    allowed = allowed + OUTPUT[found.dtype] * expected.abs() + SPACING[found.dtype] + 1e-30
    assert found.dtype == x.dtype
    excess = ((found.double() - expected).abs() / allowed).max()
    assert excess <= 1, (what, float(excess))


def with_each_isa(check):
    """Call with each instruction set; Hypothesis may not draw from a fixture of one test."""
    for name in native.isas():
        native.use_isa(name)
        try:
            check(name)
        finally:
            native.use_isa(native.isas()[0])


@given(products(), st.sampled_from(["nf4", "fp4"]), st.sampled_from([64, 128, 256, 192]), st.booleans())
def test_four_bits(case, code, block_size, nested):
    """Blocks of any multiple of 64, also across rows; a scale of scales."""
    weight, x, bias = case
    packed, absmax = fourbit.reference.quantize(weight, block_size, code)
    scales = fourbit.reference.quantize_absmax(absmax) if nested else (absmax, None, None)
    arguments = (packed, *scales, list(weight.shape), block_size, code)
    dense = fourbit.reference.dequantize(*arguments, torch.float32)
    book = 8191 if len(x) <= rounded.FEW_ROWS else 2047  # of a panel the code book has 12 bits
    absmax = fourbit.reference.dequantize_absmax(*scales).double()
    of_codes = absmax.repeat_interleave(block_size)[: weight.numel()].view(weight.shape) / book
    steps = (of_codes, 1 / 16383)
    with_each_isa(lambda isa: within(fourbit.native.linear_rounded(x, *arguments, bias), x, dense, bias, steps, isa))


@given(products(), st.sampled_from(["nf4", "fp4"]), st.sampled_from([64, 128, 192]))
def test_the_gradient_of_four_bits(case, code, block_size):
    """64 rows by 64 columns of the weight are rounded to the largest of their scales, 64 columns of the gradient to their largest."""
    weight, grad, _ = case
    weight = weight.T.contiguous()  # groups of rows
    weight = torch.cat([weight] * 64)[: 64 * len(weight)].view(len(weight), -1)  # and of columns
    weight[: len(weight) // 2] *= 0.01  # scales that differ
    rows, columns = weight.shape
    packed, absmax = fourbit.reference.quantize(weight, block_size, code)
    arguments = (packed, absmax, None, None, [rows, columns], block_size, code)
    dense = fourbit.reference.dequantize(*arguments, torch.float32)
    of_elements = (
        absmax.double().repeat_interleave(block_size)[: weight.numel()].view(rows // 64, 64, columns // 64, 64)
    )
    largest = of_elements.amax((1, 3)).repeat_interleave(64, 0).repeat_interleave(64, 1)
    steps = (largest.T / 5792 * (1 + 1 / 5792), 1 / 5792)
    with_each_isa(
        lambda isa: within(fourbit.native.input_grad_rounded(grad, *arguments), grad, dense.T, None, steps, isa)
    )


@given(products(), st.sampled_from(["nf4", "fp4"]), st.sampled_from([64, 128]))
def test_four_bits_times_bytes(case, code, block_size):
    """The approximate product errs by what 8 bits of input and of code book leave out."""
    weight, x, bias = case
    packed, absmax = fourbit.reference.quantize(weight, block_size, code)
    arguments = (packed, absmax, None, None, list(weight.shape), block_size, code)
    dense = fourbit.reference.dequantize(*arguments, torch.float32)
    of_codes = absmax.double().repeat_interleave(block_size)[: weight.numel()].view(weight.shape) / 127
    # What is rounded twice errs by a product of both steps besides.
    steps = (of_codes * (1 + 1 / 127), 1 / 127)
    with_each_isa(lambda isa: within(fourbit.native.linear_int8(x, *arguments, bias), x, dense, bias, steps, isa))


@given(products(), st.sampled_from([64, 128, 0]))
def test_int8(case, block_size):
    """A scale a block or a row."""
    weight, x, bias = case
    block_size = min(block_size or weight.shape[1], weight.shape[1])
    codes, absmax = eightbit.reference.quantize(weight, torch.int8, block_size, False)
    dense = eightbit.reference.dequantize(codes, absmax, block_size, torch.float32)
    steps = (torch.zeros(weight.shape, dtype=torch.float64), 1 / 32767)

    def check(isa):
        within(eightbit.native.linear_rounded(x, codes, absmax, block_size, bias), x, dense, bias, steps, isa)

    with_each_isa(check)


@given(products(columns=st.integers(1, 700)), st.booleans())
def test_trits(case, per_tensor):
    """Any number of columns; two digits are finer than one."""
    weight, x, bias = case
    shape = list(weight.shape)
    packed, scale = ternary.reference.quantize(weight, shape[1], per_tensor)
    dense = ternary.reference.dequantize(packed, scale, shape, shape[1], torch.float32)
    most = float(x.abs().max()) * float(dense.abs().max()) * shape[1]  # a row has one scale, which outliers make coarse

    def check(isa):
        for product, steps in ((ternary.native.linear_rounded, 16319), (ternary.native.linear_int8, 127)):
            found = product(x, packed, scale, shape, shape[1], bias)
            exact = x.double() @ dense.double().T + (0 if bias is None else bias.double())
            allowed = most / steps + OUTPUT[x.dtype] * exact.abs() + 1e-6 * most + SPACING[x.dtype] + 1e-30
            assert ((found.double() - exact).abs() <= allowed).all(), isa

    with_each_isa(check)


def test_trits_times_bytes_are_exact_sums_of_integers(isa):
    """Inputs that are whole numbers up to 127 lose nothing; also the code that is no trit, which means 2."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-127, 128, (5, 1000), generator=generator).float()
    x[:, 7] = 127.0
    packed = torch.randint(0, 256, (9, 250), generator=generator, dtype=torch.int16).to(torch.uint8)
    packed[0] = 255  # the largest sums of all
    scale = torch.ones(1, 1)
    dense = ternary.reference.dequantize(packed, scale, [9, 1000], 1000, torch.float32)
    x[1], x[2] = 127.0, -127.0
    assert torch.equal(ternary.native.linear_int8(x, packed, scale, [9, 1000], 1000, None), x @ dense.T), isa
    # The two digits of 16319 are its whole number.
    fine = torch.randint(-16319, 16320, (5, 1000), generator=generator).float()
    fine[:, 0], fine[1] = 16319.0, 16319.0
    exact = (fine.double() @ dense.double().T).float()
    assert torch.equal(ternary.native.linear_rounded(fine, packed, scale, [9, 1000], 1000, None), exact), isa


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("inputs", [3, 20])
def test_what_is_not_finite_reaches_its_row_and_no_other(isa, bad, inputs):
    """Where plain torch gives something finite, so do we."""
    weight = torch.randn(70, 192, generator=torch.Generator().manual_seed(0))
    x = torch.randn(inputs, 192, generator=torch.Generator().manual_seed(1))
    x[1, 70] = bad
    spoilt = torch.zeros(inputs, 70, dtype=torch.bool)
    spoilt[1] = True
    four = (*fourbit.reference.quantize(weight, 64, "nf4"), None, None, [70, 192], 64, "nf4")
    eight = (*eightbit.reference.quantize(weight, torch.int8, 192, False), 192)
    three = (*ternary.reference.quantize(weight, 192, True), [70, 192], 192)
    for found in (
        fourbit.native.linear_rounded(x, *four, None),
        fourbit.native.linear_int8(x, *four, None),
        eightbit.native.linear_rounded(x, *eight, None),
        ternary.native.linear_rounded(x, *three, None),
        ternary.native.linear_int8(x, *three, None),
    ):
        assert torch.equal(~found.isfinite(), spoilt), isa


def test_a_scale_that_is_not_finite_spoils_its_rows(isa):
    """A weight that was quantized with NaN in it, few rows and many."""
    weight = torch.randn(70, 128, generator=torch.Generator().manual_seed(0))
    weight[5, 3], weight[66, 100] = float("nan"), float("inf")
    arguments = (*fourbit.reference.quantize(weight, 64, "nf4"), None, None, [70, 128], 64, "nf4")
    for inputs in (2, 33):
        x = torch.randn(inputs, 128, generator=torch.Generator().manual_seed(1))
        found, expected = (
            fourbit.native.linear_rounded(x, *arguments, None),
            fourbit.reference.linear(x, *arguments, None),
        )
        assert torch.equal(found.isfinite(), expected.isfinite()), isa


@pytest.mark.parametrize(
    "name", ["linear", "linear_rounded", "linear_int8", "input_grad", "input_grad_rounded", "dequantize"]
)
def test_a_weight_that_lies_elsewhere_is_an_error(name):
    """The library reads addresses, so it must not be given one of another device. A meta tensor stands for that device here."""
    weight = torch.randn(64, 64)
    formats = (
        (fourbit, (*fourbit.reference.quantize(weight, 64, "nf4"), None, None, [64, 64], 64, "nf4")),
        (eightbit, (*eightbit.reference.quantize(weight, torch.int8, 64, False), 64)),
        (ternary, (*ternary.reference.quantize(weight, 64, True), [64, 64], 64)),
    )
    for module, arguments in formats:
        call = getattr(module.native, name, None)
        if call is None:
            continue
        first = () if name == "dequantize" else (torch.ones(20 if "grad" in name else 2, 64),)
        last = {"dequantize": (torch.float32,)}.get(name, () if "grad" in name else (None,))
        for place in (0, 1):
            moved = [each.to("meta") if number == place else each for number, each in enumerate(arguments)]
            with pytest.raises(bs.DeviceMismatchError, match=r"`weight` has device meta, expected cpu\."):
                call(*first, *moved, *last)
    if name == "linear":
        bias = torch.ones(64, device="meta")
        with pytest.raises(bs.DeviceMismatchError, match="`bias` has device meta"):
            fourbit.native.linear(torch.ones(1, 64), *formats[0][1], bias)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_in_a_gradient_or_a_scale_stays_where_it_belongs(isa, bad):
    """In the row of the gradient, and in the columns whose block has that scale."""
    weight = torch.randn(128, 192, generator=torch.Generator().manual_seed(0))
    weight[70, 70] = bad
    arguments = (*fourbit.reference.quantize(weight, 64, "nf4"), None, None, [128, 192], 64, "nf4")
    grad = torch.randn(6, 128, generator=torch.Generator().manual_seed(1))
    grad[4, 5] = bad
    spoilt = torch.zeros(6, 192, dtype=torch.bool)
    spoilt[4], spoilt[:, 64:128] = True, True
    assert torch.equal(~fourbit.native.input_grad_rounded(grad, *arguments).isfinite(), spoilt), isa


@pytest.mark.parametrize("inputs", [5, 600])
def test_the_number_of_threads_leaves_no_trace(isa, inputs):
    """Work is split by shape alone; 600 rows are more than one batch."""
    weight = torch.randn(320, 576, generator=torch.Generator().manual_seed(0))
    x = torch.randn(inputs, 576, generator=torch.Generator().manual_seed(1))
    grad = torch.randn(inputs, 320, generator=torch.Generator().manual_seed(2))
    four = (*fourbit.reference.quantize(weight, 64, "nf4"), None, None, [320, 576], 64, "nf4")
    three = (*ternary.reference.quantize(weight, 576, True), [320, 576], 576)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            products = (
                fourbit.native.linear_rounded(x, *four, None),
                fourbit.native.input_grad_rounded(grad, *four),
                ternary.native.linear_rounded(x, *three, None),
            )
            found.append(products)
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, other, found[0])), isa


def test_a_row_of_many_does_not_depend_on_the_others(isa):
    """Wide rows come in batches of fewer: here of 96."""
    weight = torch.randn(64, 16384, generator=torch.Generator().manual_seed(0))
    x = torch.randn(120, 16384, generator=torch.Generator().manual_seed(1))
    four = (*fourbit.reference.quantize(weight, 64, "nf4"), None, None, [64, 16384], 64, "nf4")
    whole = fourbit.native.linear_rounded(x, *four, None)
    assert torch.equal(whole[80:], fourbit.native.linear_rounded(x[80:], *four, None)), isa
    tall = (*four[:4], [16384, 64], 64, "nf4")
    whole = fourbit.native.input_grad_rounded(x, *tall)
    assert torch.equal(whole[80:], fourbit.native.input_grad_rounded(x[80:], *tall)), isa


def test_auto_takes_it_and_exact_does_not():
    """Columns that are no groups of 64 are computed exactly; an approximate product is taken by name."""
    assert explain("nf4_linear", shape=(1, 64, 64)).name == "native_rounded"
    choice = explain("nf4_linear", shape=(1, 64, 100))
    assert (choice.name, choice.numerics) == ("native", "exact")
    assert ("native_rounded", "it takes columns in groups of 64, not 100") in choice.rejected
    with policy("exact"):
        assert explain("nf4_linear", shape=(1, 64, 64)).name == "native"
    assert explain("ternary_linear", shape=(1, 64, 64)).name == "native_rounded"
    assert explain("int8_linear", shape=(1, 64, 64)).name == "native_rounded"
    choice = explain("fp8_linear", shape=(1, 64, 64))
    assert (choice.name, choice.numerics) == ("native", "exact")
    assert select("fp8_linear", torch.ones(1, 64), bs.quantize(torch.ones(8, 64), "fp8")).name == "native"
    with policy("require:native_int8"):
        assert explain("ternary_linear", shape=(1, 64, 64)).numerics == "approximate"
        assert explain("int8_linear", shape=(1, 64, 64)).name == "native_rounded"


def test_auto_takes_the_gradient_where_it_was_measured(isa):
    """Which is not with AVX-512, however few the rows; of groups of rows alone."""
    choice = explain("nf4_input_grad", shape=(1, 64, 64))
    assert choice.name == ("native" if isa.startswith("avx512") else "native_rounded")
    choice = explain("nf4_input_grad", shape=(1, 100, 64))
    assert (choice.name, choice.numerics) == ("native", "exact")
    assert ("native_rounded", "it sums over rows in groups of 64, not 100") in choice.rejected
    with policy("exact"):
        assert explain("nf4_input_grad", shape=(20, 64, 64)).name == "native"
