"""A precision mode says what to compute in, what the master weights are and whether the loss is scaled."""

import pytest
import torch

from bedstone.core.dtype import PrecisionMode
from bedstone.core.errors import UnknownNameError


@pytest.mark.parametrize(
    ("mode", "compute", "scaling"),
    [
        (PrecisionMode.FULL, torch.float32, False),
        (PrecisionMode.BF16, torch.bfloat16, False),
        (PrecisionMode.FP16, torch.float16, True),
    ],
)
def test_modes_are_those_of_the_document(mode, compute, scaling):
    assert (mode.compute_dtype, mode.master_dtype, mode.needs_loss_scaling) == (compute, torch.float32, scaling)


def test_a_mode_is_found_by_its_name_in_any_case():
    assert PrecisionMode("BF16") is PrecisionMode.BF16
    assert str(PrecisionMode("full")) == "full (computes in f32)"


def test_an_unknown_mode_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError) as raised:
        PrecisionMode("bf61")
    assert str(raised.value) == "No precision mode is called 'bf61'. Did you mean 'bf16'? Known: bf16, fp16, full."


def test_small_steps_vanish_in_bfloat16_and_small_numbers_in_float16():
    weight, step = torch.tensor(1.0), 1 / 600
    assert weight.bfloat16() + step == 1
    assert torch.tensor(2e-8).half() == 0
