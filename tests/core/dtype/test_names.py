"""A dtype has one short name and is found under every name that people use."""

import pytest
import torch

from bedstone.core.dtype import dtype_name, parse_dtype
from bedstone.core.errors import UnknownNameError

TORCH_NAMES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}


@pytest.mark.parametrize("name", sorted(TORCH_NAMES))
def test_torch_names_are_found_in_any_case_and_with_the_module_before_them(name):
    for spelling in (name, name.upper(), f"torch.{name}", f" {name} "):
        assert parse_dtype(spelling) is TORCH_NAMES[name]


@pytest.mark.parametrize("dtype", sorted(set(TORCH_NAMES.values()), key=str), ids=str)
def test_the_short_name_leads_back_to_the_dtype(dtype):
    assert parse_dtype(dtype_name(dtype)) is dtype


def test_short_names_are_all_different():
    assert len({dtype_name(dtype) for dtype in TORCH_NAMES.values()}) == len(set(TORCH_NAMES.values()))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("f16", torch.float16), ("fp16", torch.float16), ("half", torch.float16), ("bf16", torch.bfloat16),
        ("f32", torch.float32), ("float", torch.float32), ("double", torch.float64), ("fp64", torch.float64),
        ("u8", torch.uint8), ("u32", torch.uint32), ("i8", torch.int8), ("i16", torch.int16), ("short", torch.int16),
        ("int", torch.int32), ("i32", torch.int32), ("long", torch.int64), ("i64", torch.int64), ("u4", torch.uint4),
        ("bool", torch.bool), ("fp8", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2), ("c64", torch.complex64),
        ("f8_e8m0fnu", torch.float8_e8m0fnu), ("f4_e2m1fn_x2", torch.float4_e2m1fn_x2), ("qint8", torch.qint8),
    ],
)  # fmt: skip
def test_customary_names_are_known(name, dtype):
    assert parse_dtype(name) is dtype


@pytest.mark.parametrize(("wrong", "guess"), [("float23", "float32"), ("unit8", "uint8"), ("bf61", "bf16")])
def test_a_name_nobody_has_is_refused_with_the_nearest(wrong, guess):
    with pytest.raises(UnknownNameError, match=rf"No dtype is called '{wrong}'\. Did you mean '{guess}'\? Known: "):
        parse_dtype(wrong)


def test_an_empty_name_is_refused():
    with pytest.raises(UnknownNameError, match="No dtype is called ''"):
        parse_dtype("")
