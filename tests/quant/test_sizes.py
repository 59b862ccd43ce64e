"""The bytes of a model are those that it takes: counted by hand, storages once, wrapper tensors by what they hold."""

from __future__ import annotations

import bitsandbytes as bnb
import pytest
import torch
from torch import nn

import bedstone as bs
from bedstone import quant
from bedstone.quant import model_bytes
from bedstone.testing import tiny_llama


def test_counts_parameters_and_buffers():
    """Of a plain model: 4 bytes an element, and a buffer."""
    model = nn.Sequential(nn.Linear(10, 3), nn.BatchNorm1d(3))
    assert model_bytes(model) == 4 * (30 + 3) + 4 * (3 + 3 + 3 + 3) + 8
    assert model_bytes(torch.ones(3, dtype=torch.bfloat16)) == 6


def test_counts_a_packed_weight_with_its_scales():
    """64 x 64 in NF4: 2,048 bytes of codes and 64 scales of 4; torch counts the dense 16,384."""
    layer = nn.Linear(64, 64, bias=False)
    bs.quantize(layer, "nf4")
    assert model_bytes(layer) == 2304
    assert layer.weight.nelement() * layer.weight.element_size() == layer.weight.nbytes == 16384


def test_counts_every_scheme_as_the_weight_does(weight):
    """Alone and as a part of a model."""
    assert model_bytes(weight) == weight.packed_bytes


def test_counts_bitsandbytes_with_its_scales():
    """Their `nbytes` says 2,048; 256 of absmax and 64 of the table are in `quant_state`."""
    layer = bnb.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", compress_statistics=False).to("cpu")
    assert layer.weight.nbytes == 2048
    assert model_bytes(layer) == 2048 + 64 * 4 + 16 * 4


def test_counts_the_nested_scales_of_bitsandbytes():
    """A byte a scale, their absmax, both tables, and the offset."""
    layer = bnb.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", compress_statistics=True).to("cpu")
    assert model_bytes(layer) == 2048 + 64 + 1 * 4 + 16 * 4 + 256 * 4 + 4


def test_counts_shared_memory_once():
    """A tied weight, a view of another parameter, a buffer that is a slice."""
    model = nn.ModuleList([nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)])
    model[1].weight = nn.Parameter(model[0].weight.detach().view(8, 8))
    model.register_buffer("row", model[0].weight.detach()[0])
    assert model_bytes(model) == 256
    bs.quantize(model[0], "int8")
    model[1].weight = nn.Parameter(model[0].weight.detach(), requires_grad=False)
    model.row = None
    assert model_bytes(model) == 64 + 32


def test_counts_what_a_meta_model_would_take():
    """Each tensor apart, ties once."""
    with torch.device("meta"):
        dense, tied = nn.Linear(64, 64), nn.ModuleList([nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)])
    tied[1].weight = tied[0].weight
    assert model_bytes(dense) == 4 * 64 * 65
    assert model_bytes(tied) == 4 * 64 * 64
    bs.quantize(dense, "nf4")
    assert model_bytes(dense) == 2304 + 256


@pytest.mark.parametrize("scheme", [quant.NF4(double_quant=True), quant.Int8()], ids=["nf4", "int8"])
def test_a_llama_takes_what_its_report_says(scheme):
    """Before, minus the dense weights, plus the packed ones."""
    model = tiny_llama()
    before = model_bytes(model)
    report = bs.quantize(model, scheme)
    assert model_bytes(model) == before - report.dense_bytes + report.packed_bytes
