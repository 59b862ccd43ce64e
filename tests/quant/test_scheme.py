"""The contract of a scheme: what it refuses, what it is called, and what it is as a value."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass

import pytest
import torch

import bedstone as bs
from bedstone import quant
from bedstone.core.errors import DimensionMismatchError, InvalidConfigError, UnknownNameError
from bedstone.core.protocols import Dequantize, Quantize
from bedstone.quant import NonFiniteWeightError, QuantizationError, Scheme, get_scheme, scheme_from_dict, schemes

NAMES = ("nf4", "fp4", "int8", "fp8", "ternary")


# --- names ---------------------------------------------------------------------------------------


def test_the_five_are_registered():
    """By the names that users write."""
    assert set(NAMES) <= set(schemes.names())
    assert [get_scheme(name).name for name in NAMES] == list(NAMES)


def test_an_unknown_name_lists_the_known_ones_and_suggests_the_nearest():
    """The whole message."""
    with pytest.raises(UnknownNameError) as caught:
        bs.quantize(torch.ones(2), "nf3")
    known = ", ".join(sorted(quant.schemes.names()))  # with those that plug-ins and other tests have registered
    assert str(caught.value) == f"No quantization scheme is called 'nf3'. Did you mean 'nf4'? Known: {known}."
    assert {"fp4", "fp8", "int8", "nf4", "ternary"} <= set(quant.schemes.names())


def test_what_is_neither_name_nor_scheme_is_refused():
    """A class is a likely slip."""
    with pytest.raises(InvalidConfigError, match=r"must be a scheme or its name: nf4, fp4, int8, fp8, ternary"):
        bs.quantize(torch.ones(2), quant.NF4)


def test_a_registered_object_that_is_no_scheme_is_named(monkeypatch):
    """A plug-in may register anything."""
    monkeypatch.setitem(schemes._members, "odd", dict)
    with pytest.raises(InvalidConfigError) as caught:
        get_scheme("odd")
    assert str(caught.value) == "The quantization scheme 'odd' is <class 'dict'>, not a subclass of Scheme."


# --- as a value ----------------------------------------------------------------------------------


def test_is_a_frozen_value(scheme):
    """Equal, hashable, picklable, immutable."""
    again = scheme_from_dict(json.loads(json.dumps(scheme.to_dict())))
    assert again == scheme
    assert hash(again) == hash(scheme)
    assert pickle.loads(pickle.dumps(scheme)) == scheme
    with pytest.raises(AttributeError, match="cannot assign to field"):
        scheme.block_size = 1
    assert quant.NF4() != quant.FP4()


def test_keeps_the_protocols_of_the_foundation(scheme):
    """`Quantize` and `Dequantize`, with a device."""
    assert isinstance(scheme, Quantize)
    assert isinstance(scheme, Dequantize)
    packed = scheme.quantize(torch.ones(2, 3), torch.device("meta"))
    assert {part.device.type for part in packed.parts.values()} == {"meta"}
    dense = scheme.dequantize(scheme.quantize(torch.zeros(2, 3)), torch.device("meta"))
    assert (dense.device.type, dense.shape) == ("meta", (2, 3))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"scheme": "int8", "bits": 4}, "The scheme 'int8' has no option 'bits'. It has: granularity, block_size."),
        (
            {"scheme": "nf4", "block_size": 16},
            "`block_size` (=16) must be one of 32, 64, 128, 256, 512, 1024, 2048, 4096.",
        ),
        ({"scheme": "nf4", "block_size": 8192}, "`block_size` (=8192) must be one of 32, 64,"),
        ({"scheme": "fp4", "double_quant": "yes"}, "`double_quant` (='yes') must be true or false."),
        ({"scheme": "fp8", "format": "e3m4"}, "`format` (='e3m4') must be one of e4m3fn, e5m2."),
    ],
)
def test_refuses_options_that_are_not_allowed(values, said):
    """And lists those that are."""
    with pytest.raises(InvalidConfigError) as caught:
        scheme_from_dict(values)
    assert said in str(caught.value)


def test_a_description_without_a_name_is_refused():
    """Or with one of a plug-in that is not installed."""
    with pytest.raises(UnknownNameError):
        scheme_from_dict({"block_size": 64})


# --- what cannot be packed -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_refuses_what_is_not_floating_point(scheme, dtype):
    """Integer weights are packed already, most likely."""
    with pytest.raises(QuantizationError) as caught:
        scheme.quantize(torch.ones(2, 3, dtype=dtype))
    assert str(caught.value) == f"{scheme.name} holds floating-point weights, not {dtype}."
    assert (caught.value.scheme, caught.value.dtype) == (scheme.name, dtype)


def test_refuses_a_number(scheme):
    """A weight has rows or at least elements."""
    with pytest.raises(DimensionMismatchError, match=r"`weight` has number of dimensions 0, expected at least 1"):
        scheme.quantize(torch.tensor(1.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_refuses_a_weight_that_is_not_finite_with_the_position_of_the_first(scheme, value, dtype):
    """It would spoil its block, and fp8 would turn infinity into 448 in silence."""
    weight = torch.ones(3, 40, dtype=dtype)
    weight[1, 35] = value
    weight[2, 0] = float("nan")
    with pytest.raises(NonFiniteWeightError) as caught:
        scheme.quantize(weight)
    assert caught.value.position == (1, 35)
    assert str(caught.value.value) == str(value)


def test_refuses_a_float64_weight_that_float32_cannot_hold(scheme):
    """It would become infinite on the way."""
    with pytest.raises(NonFiniteWeightError, match=r"the one at \(1\) is 1e\+300") as caught:
        scheme.quantize(torch.tensor([1.0, 1e300], dtype=torch.float64))
    assert caught.value.position == (1,)


@pytest.mark.parametrize(
    ("scheme", "part"),
    [(quant.NF4(double_quant=True), "nested_absmax"), (quant.Ternary(), "scale")],
    ids=["nf4", "ternary"],
)
def test_refuses_a_weight_whose_mean_overflows(scheme, part):
    """Their scales are means, and the sum of huge numbers is infinite; a NaN weight would come of it."""
    with pytest.raises(QuantizationError) as caught:
        scheme.quantize(torch.full((8, 128), 3e38))
    assert str(caught.value) == (
        f"{scheme.name} cannot hold this weight: `{part}`, computed from it, leaves float32. Its magnitudes are too large."
    )


def test_packs_any_shape_stride_and_dtype_without_changing_it(scheme):
    """Odd, empty, of many dimensions, transposed; float8 too."""
    for shape in [(1,), (7,), (3, 5), (2, 3, 5), (1, 129), (0,), (0, 4), (4, 0)]:
        weight = torch.randn(shape)
        before = weight.clone()
        assert scheme.quantize(weight).dequantize().shape == shape
        assert torch.equal(weight, before)
    base = torch.randn(40, 24)
    assert torch.equal(scheme.quantize(base.t()).dequantize(), scheme.quantize(base.t().contiguous()).dequantize())
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        weight = base.to(dtype)
        packed = scheme.quantize(weight)
        assert packed.dtype is packed.dequantize().dtype is dtype
        assert torch.equal(packed.dequantize(torch.float32), scheme.quantize(weight.float()).dequantize())


def test_a_packed_weight_can_be_packed_by_another_scheme(scheme):
    """Through its dense values."""
    first = bs.quantize(torch.randn(4, 64), "int8")
    assert torch.equal(scheme.quantize(first).dequantize(), scheme.quantize(first.dequantize()).dequantize())


# --- a scheme with a rule of its own -------------------------------------------------------------


@dataclass(frozen=True)
class WholeBlocks(quant.Int8):
    """int8 for rows of whole blocks."""

    name = "whole_blocks"

    def check(self, tensor):
        super().check(tensor)
        if tensor.shape[-1] % 32:
            message = f"{self.name} packs rows of a multiple of 32 columns, not {tensor.shape[-1]}."
            raise QuantizationError(message, scheme=self.name, columns=tensor.shape[-1])


def test_a_scheme_that_needs_more_says_so_before_anything_is_changed():
    """`check` is asked for all layers of a model first."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 7), torch.nn.Linear(7, 2))
    with pytest.raises(QuantizationError) as caught:
        bs.quantize(model, WholeBlocks())
    assert str(caught.value) == "2: whole_blocks packs rows of a multiple of 32 columns, not 7."
    assert not any(isinstance(layer.weight, quant.QuantizedTensor) for layer in model)


def test_the_contract_is_two_methods():
    """Whoever writes them has a scheme."""
    assert Scheme.__abstractmethods__ == {"pack", "unpack"}
