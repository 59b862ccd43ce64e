"""Every dtype of torch has exact bits, a kind and an accumulator."""

import pytest
import torch

from bedstone.core.dtype import (
    accumulator_dtype,
    bits_per_element,
    bytes_per_element,
    is_floating_point,
    is_half_precision,
    is_integer,
    is_quantized,
    is_training_dtype,
)
from bedstone.core.errors import InvalidConfigError, UnknownNameError, UnsupportedError

ALL = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)

# Written by hand, name by name, so that the table in the code is checked against something else.
BITS = {
    "bool": 8,
    "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint5": 5, "uint6": 6, "uint7": 7,
    "int1": 1, "int2": 2, "int3": 3, "int4": 4, "int5": 5, "int6": 6, "int7": 7,
    "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64,
    "int8": 8, "int16": 16, "int32": 32, "int64": 64,
    "float4_e2m1fn_x2": 8, "float8_e4m3fn": 8, "float8_e4m3fnuz": 8, "float8_e5m2": 8, "float8_e5m2fnuz": 8,
    "float8_e8m0fnu": 8, "float16": 16, "bfloat16": 16, "float32": 32, "float64": 64,
    "complex32": 32, "complex64": 64, "complex128": 128,
    "quint2x4": 2, "quint4x2": 4, "quint8": 8, "qint8": 8, "qint32": 32,
    "bits1x8": 8, "bits2x4": 8, "bits4x2": 8, "bits8": 8, "bits16": 16,
}  # fmt: skip


def test_the_expectations_name_every_dtype_of_this_torch():
    assert {str(dtype).removeprefix("torch.") for dtype in ALL} == set(BITS)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_bits_are_exact_for_every_dtype(dtype):
    assert bits_per_element(dtype) == BITS[str(dtype).removeprefix("torch.")]


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_an_element_alone_takes_what_torch_says(dtype):
    assert bytes_per_element(dtype) == dtype.itemsize


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning")
def test_quantized_numbers_share_bytes_as_the_bits_say():
    scale, zero = torch.ones(1), torch.zeros(1)
    packed = torch.quantize_per_channel(torch.ones(1, 10), scale, zero, 0, torch.quint4x2)
    assert packed.untyped_storage().nbytes() == 10 * bits_per_element(torch.quint4x2) // 8


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_floats_of_every_width_are_floating_point_and_nothing_else_is(dtype):
    assert is_floating_point(dtype) is ("float" in str(dtype))


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_integers_are_those_called_int(dtype):
    assert is_integer(dtype) is str(dtype).startswith(("torch.int", "torch.uint"))


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_quantized_codes_are_those_of_torch_quantize(dtype):
    assert is_quantized(dtype) is str(dtype).startswith(("torch.qint", "torch.quint"))


def test_half_precision_and_training_dtypes_are_those_of_the_document():
    assert {dtype for dtype in ALL if is_half_precision(dtype)} == {torch.float16, torch.bfloat16}
    assert {dtype for dtype in ALL if is_training_dtype(dtype)} == {torch.float16, torch.bfloat16, torch.float32}


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_every_dtype_that_can_be_added_has_an_accumulator(dtype):
    if "bits" in str(dtype):
        with pytest.raises(UnsupportedError) as raised:
            accumulator_dtype(dtype)
        assert str(raised.value) == (
            f"{dtype} has no accumulator: its elements are bare bits, which cannot be added. "
            "View the tensor as torch.uint8 or unpack it first."
        )
    elif is_integer(dtype) or dtype is torch.bool:
        assert accumulator_dtype(dtype) is torch.int64
    elif dtype in {torch.float64, torch.complex128}:
        assert accumulator_dtype(dtype) is dtype
    else:
        assert accumulator_dtype(dtype) is (torch.complex64 if dtype.is_complex else torch.float32)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.uint8, torch.uint16, torch.int64], ids=str)
def test_integers_accumulate_in_what_torch_sums_them_in(dtype):
    assert accumulator_dtype(dtype) is torch.zeros(2, dtype=dtype).sum().dtype


def test_names_are_taken_wherever_a_dtype_is():
    assert (bits_per_element("bf16"), bytes_per_element("fp8"), accumulator_dtype("half")) == (16, 1, torch.float32)


def test_what_is_not_a_dtype_is_named():
    with pytest.raises(UnknownNameError) as unknown:
        bits_per_element("bfloat61")
    assert str(unknown.value).startswith(
        "No dtype is called 'bfloat61'. Did you mean 'bfloat16'? Known: bf16, bfloat16, bits16,"
    )
    with pytest.raises(InvalidConfigError) as invalid:
        bytes_per_element(4)
    assert str(invalid.value) == (
        "`dtype` (=4) must be a torch.dtype or its name. Pass, for example, torch.bfloat16 or 'bf16'."
    )
