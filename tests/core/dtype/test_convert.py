"""A safe conversion gives what torch gives, or refuses the first number that does not fit."""

import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.dtype import ConversionOverflowError, safe_convert
from bedstone.core.errors import UnknownNameError, UnsupportedError

INTEGERS = [getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]
FRACTION_BITS = {
    torch.float8_e4m3fn: 3, torch.float8_e4m3fnuz: 3, torch.float8_e5m2: 2, torch.float8_e5m2fnuz: 2, torch.float16: 10,
    torch.bfloat16: 7, torch.float32: 23,
}  # fmt: skip
ADVICE = "Clamp or scale the tensor, choose a wider dtype, or pass refuse_overflow=False."


def fits(tensor, dtype):
    try:
        converted = safe_convert(tensor, dtype)
    except ConversionOverflowError:
        return False
    assert torch.equal(converted.to(torch.float64), tensor.to(dtype).to(torch.float64))
    return True


@given(st.sampled_from(INTEGERS), st.sampled_from(INTEGERS), st.data())
def test_an_integer_fits_exactly_when_it_lies_in_the_range(source, target, data):
    limits, allowed = torch.iinfo(source), torch.iinfo(target)
    number = data.draw(st.integers(limits.min, limits.max))
    assert fits(torch.tensor([0, number], dtype=source), target) is (allowed.min <= number <= allowed.max)


@given(st.sampled_from(INTEGERS), st.floats(width=64))
def test_a_float_fits_an_integer_exactly_when_its_whole_part_does(target, number):
    limits = torch.iinfo(target)
    expected = math.isfinite(number) and limits.min <= math.trunc(number) <= limits.max
    assert fits(torch.tensor([number], dtype=torch.float64), target) is expected


@given(st.sampled_from(sorted(FRACTION_BITS, key=str)), st.data())
def test_a_float_fits_a_float_exactly_when_it_rounds_to_a_finite_number_in_range(target, data):
    # torch rounds float64 to float32 on the way to a smaller dtype, so numbers for those are drawn in float32.
    width = 64 if target is torch.float32 else 32
    number = data.draw(st.floats(width=width, allow_nan=False, allow_infinity=False))
    top = torch.finfo(target).max
    step = 2.0 ** (math.floor(math.log2(top)) - FRACTION_BITS[target])
    edge = top + step / 2
    odd = (top / step) % 2 == 1  # a tie is rounded to the even neighbour: away, if the largest number is odd
    expected = abs(number) < edge or (abs(number) == edge and not odd)
    assert fits(torch.tensor([number], dtype=torch.float64), target) is expected


@pytest.mark.parametrize(
    ("target", "fits_still", "too_large"),
    [
        (torch.float16, 65519.0, 65520.0),
        (torch.float8_e4m3fn, 464.0, 465.0),
        (torch.float8_e4m3fnuz, 247.0, 248.0),
        (torch.float8_e5m2, 61439.0, 61440.0),
        (torch.float8_e5m2fnuz, 61439.0, 61440.0),
        (torch.float8_e8m0fnu, 2.0**127, -1.0),
    ],
    ids=str,
)
def test_the_edge_of_each_small_float_is_where_rounding_puts_it(target, fits_still, too_large):
    assert fits(torch.tensor([fits_still]), target)
    assert not fits(torch.tensor([too_large]), target)


def test_nan_passes_between_floats_and_infinity_where_it_exists():
    assert safe_convert(torch.tensor([math.nan]), "fp8").isnan().all()
    assert safe_convert(torch.tensor([-math.inf]), "f16").item() == -math.inf
    with pytest.raises(ConversionOverflowError) as raised:
        safe_convert(torch.tensor(math.inf), "fp8")
    assert (
        str(raised.value) == f"tensor (=inf) would become 448.0 in f8_e4m3fn, whose range is -448.0 to 448.0. {ADVICE}"
    )


def test_the_error_names_first_position_number_and_range():
    tensor = torch.ones(2, 3, 4)
    tensor[1, 0, 2] = tensor[1, 2, 3] = -300.0
    with pytest.raises(ConversionOverflowError) as raised:
        safe_convert(tensor.transpose(0, 2), torch.int8)
    error = raised.value
    assert str(error) == f"tensor[2, 0, 1] (=-300.0) would become -44 in i8, whose range is -128 to 127. {ADVICE}"
    assert (error.position, error.number, error.target, error.code) == ((2, 0, 1), -300.0, "i8", "conversion_overflow")
    assert isinstance(error, OverflowError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_nan_is_no_integer():
    with pytest.raises(ConversionOverflowError, match=r"tensor\[1\] \(=nan\) would become .* in i32, whose range is"):
        safe_convert(torch.tensor([1.0, math.nan]), torch.int32)


@pytest.mark.parametrize(
    "target", [torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32], ids=str
)
def test_the_edges_of_an_integer_fit_and_their_neighbours_do_not(target):
    limits = torch.iinfo(target)
    for number, expected in ((limits.max, True), (limits.max + 0.9, True), (limits.max + 1, False)):
        assert fits(torch.tensor([number], dtype=torch.float64), target) is expected
    for number, expected in ((limits.min, True), (limits.min - 0.9, True), (limits.min - 1, False)):
        assert fits(torch.tensor([number], dtype=torch.float64), target) is expected


def test_the_largest_integers_are_compared_exactly():
    assert not fits(torch.tensor([2.0**63]), torch.int64)
    assert fits(torch.tensor([-(2.0**63)]), torch.int64)
    assert not fits(torch.tensor([-1], dtype=torch.int64), torch.uint64)
    assert not fits(torch.tensor([2**63], dtype=torch.uint64), torch.int64)


def test_a_lost_number_is_found_in_a_later_piece():
    tensor = torch.zeros(3, 2**20 - 1)
    tensor[1, 7] = 1e9
    with pytest.raises(ConversionOverflowError, match=r"tensor\[1, 7\] \(=1000000000.0\)"):
        safe_convert(tensor, torch.float16)


def test_complex_numbers_are_checked_part_by_part():
    good = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex128)
    assert torch.equal(safe_convert(good.conj(), torch.complex64), good.conj().to(torch.complex64))
    with pytest.raises(ConversionOverflowError) as raised:
        safe_convert(torch.tensor([0, 0, 1 + 1e300j, 0, 0], dtype=torch.complex128), torch.complex64)
    assert str(raised.value) == (
        "tensor[2] (=(1+1e+300j)) would become (1+infj) in c64, whose range in each part is "
        f"-3.4028234663852886e+38 to 3.4028234663852886e+38. {ADVICE}"
    )
    assert not fits(torch.tensor([1e300], dtype=torch.float64), torch.complex64)


def test_a_complex_number_keeps_its_imaginary_part_or_is_refused():
    with pytest.raises(UnsupportedError) as raised:
        safe_convert(torch.tensor([1j]), torch.float32)
    assert str(raised.value) == (
        "Converting c64 to f32 would drop the imaginary part. Take tensor.real, tensor.imag or tensor.abs() first."
    )


@pytest.mark.parametrize("target", [torch.uint4, torch.float4_e2m1fn_x2, torch.bits8, torch.qint8], ids=str)
def test_packed_and_quantized_dtypes_are_refused_by_name(target):
    with pytest.raises(UnsupportedError, match=r"torch cannot convert f32 to \w+\. Pack or unpack \w+ yourself"):
        safe_convert(torch.ones(2), target)


def test_bool_takes_and_gives_everything():
    assert safe_convert(torch.tensor([0.0, math.nan, 1e30]), torch.bool).tolist() == [False, True, True]
    assert safe_convert(torch.tensor([True, False]), torch.uint8).tolist() == [1, 0]


def test_the_check_can_be_left_out():
    assert safe_convert(torch.tensor([7e4]), "f16", refuse_overflow=False).item() == math.inf


def test_the_same_dtype_gives_the_same_tensor_and_gradients_flow():
    tensor = torch.ones(3, requires_grad=True)
    assert safe_convert(tensor, torch.float32) is tensor
    safe_convert(tensor, torch.bfloat16).sum().backward()
    assert torch.equal(tensor.grad, torch.ones(3))


def test_empty_and_zero_dimensional_tensors_convert():
    assert safe_convert(torch.empty(0, 3), torch.int8).shape == (0, 3)
    assert safe_convert(torch.tensor(3.0), torch.int8).item() == 3


def test_an_unknown_dtype_is_refused_before_anything_is_converted():
    with pytest.raises(UnknownNameError, match="No dtype is called 'f61'"):
        safe_convert(torch.ones(1), "f61")
