"""Contracts: a configuration is valid from birth, an operation is dispatched only to where its inputs lie."""

from __future__ import annotations

import re
from collections import UserDict
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import pytest
import torch

from bedstone.core.errors import DeviceMismatchError, DeviceNotAvailableError, InvalidConfigError, Problem
from bedstone.core.events import ConfigValidated
from bedstone.core.protocols import Dequantize, GpuDispatchable, Quantize, ValidatableConfig

META = torch.device("meta")
AWAY = torch.empty(1, device=META)


@dataclass(frozen=True)
class Shape(ValidatableConfig):
    rank: int = 8
    alpha: float = 16.0

    def problems(self):
        if self.rank < 1:
            yield Problem("rank", f"(={self.rank}) must be at least 1.", self.rank)
        if self.alpha <= 0:
            yield Problem("alpha", f"(={self.alpha}) must be above 0.", self.alpha)


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@dataclass
class Inputs:
    pair: Pair
    by_name: dict[str, torch.Tensor]


class Sum(GpuDispatchable[Inputs, str]):
    gpu_types = frozenset({"meta"})  # the one other device type that every machine has

    def dispatch_gpu(self, input, device):  # noqa: A002
        return f"gpu on {device}"

    def dispatch_cpu(self, input, device):  # noqa: A002
        return f"cpu on {device}"


def inputs(device="cpu", odd="cpu"):
    tensor = torch.ones(2, device=device)
    return Inputs(Pair(tensor, tensor), {"bias": torch.ones(2, device=odd)})


def test_an_invalid_config_never_exists_and_reports_all_problems():
    """Both problems are in one error."""
    with pytest.raises(InvalidConfigError) as caught:
        Shape(rank=0, alpha=-1.0)
    assert [problem.path for problem in caught.value.problems] == ["rank", "alpha"]


def test_replacing_a_field_validates_again():
    """A changed copy is a birth too."""
    with pytest.raises(InvalidConfigError, match=r"Shape has a problem:\n  `rank` \(=-3\) must be at least 1\."):
        replace(Shape(), rank=-3)


def test_a_valid_config_is_an_event(events):
    """The stream says what was checked."""
    Shape()
    assert [event.config for event in events if isinstance(event, ConfigValidated)] == ["Shape"]


@pytest.mark.parametrize(("device", "expected"), [("cpu", "cpu on cpu"), ("meta", "gpu on meta")])
def test_dispatch_routes_by_device(device, expected):
    """The device that is named decides."""
    assert Sum().dispatch(inputs(device, device), torch.device(device)) == expected


def test_dispatch_finds_a_stray_tensor_at_any_depth():
    """The message names the path of the tensor and both devices."""
    with pytest.raises(DeviceMismatchError) as caught:
        Sum().dispatch(inputs("meta", odd="cpu"), META)
    assert str(caught.value) == ("`input.by_name['bias']` has device cpu, expected meta. Move it with `.to('meta')`.")


def test_dispatch_refuses_a_device_nobody_serves():
    """No silent CPU path."""

    class CudaOnly(Sum):
        gpu_types = frozenset({"cuda"})

    with pytest.raises(DeviceNotAvailableError) as caught:
        CudaOnly().dispatch(inputs("meta", "meta"), META)
    assert str(caught.value) == "CudaOnly has no implementation for the device meta. It runs on cpu, cuda."


def test_a_numbered_cpu_and_an_unnumbered_one_are_the_same():
    """There is one CPU."""
    assert Sum().dispatch(inputs(), torch.device("cpu", 0)) == "cpu on cpu:0"


def test_gpu_available_is_false_without_an_accelerator():
    """It asks torch and creates nothing."""
    if torch.accelerator.is_available():
        assert Sum().gpu_available() in {True, False}
    else:
        assert not Sum().gpu_available()


def test_the_halves_of_a_scheme_are_told_apart():
    """One-way schemes quantize without dequantizing."""

    class OneWay:
        def quantize(self, tensor, device):
            return tensor.sign().to(device)

    assert isinstance(OneWay(), Quantize)
    assert not isinstance(OneWay(), Dequantize)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (UserDict(a=[AWAY]), "input['a'][0]"),
        (MappingProxyType({1: AWAY}), "input[1]"),
        ({"{odd}": AWAY}, "input['{odd}']"),
    ],
)
def test_dispatch_looks_into_every_mapping(given, path):
    """A tokenizer's batch is a mapping and no dict."""
    with pytest.raises(DeviceMismatchError, match=re.escape(f"`{path}` has device meta, expected cpu.")):
        Sum().dispatch(given, "cpu")


def test_dispatch_names_a_device_that_is_none():
    """The error of torch lists 30 kinds of device."""
    with pytest.raises(InvalidConfigError, match=r"`device` \(='gpu'\) is not a device that torch knows."):
        Sum().dispatch(AWAY, "gpu")
