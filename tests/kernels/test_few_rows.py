"""torch's own int8 product is used where it is right and fast, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from bedstone.kernels.few_rows import int8_linear, suits_int8_linear


@pytest.mark.parametrize("columns", [64, 128, 576, 4096])
@pytest.mark.parametrize("inputs", [1, 3, 16])
def test_is_the_product_with_the_codes(columns, inputs):
    """To one rounding of the sum to bfloat16 and one of the result: the scale is float32 and adds none."""
    codes = torch.randint(-127, 128, (37, columns), dtype=torch.int8)
    x, bias = torch.randn(inputs, columns).bfloat16(), torch.randn(37)
    scale = torch.rand(37) + 0.5
    expected = (x.double() @ codes.double().T) * scale + bias
    found = int8_linear(x, [codes[:20], codes[20:]], scale, bias)
    assert found.dtype is torch.bfloat16
    size = expected.abs().amax()
    assert (found.double() - expected).abs().amax() <= size * 2**-7


@pytest.mark.parametrize("columns", [1, 7, 8, 33, 63, 65, 100, 1000])
def test_columns_that_torch_reads_past_are_left_alone(columns):
    """Torch's product ends the process, or returns what lies behind its input, at 1, 33 or 100 columns."""
    assert not suits_int8_linear(torch.ones(1, columns, dtype=torch.bfloat16))


def test_other_inputs_are_left_alone():
    """Other dtypes run a plain loop there, from 17 rows on unpacking is faster, and nothing has no product."""
    assert suits_int8_linear(torch.ones(2, 8, 64, dtype=torch.bfloat16))
    assert not suits_int8_linear(torch.ones(17, 64, dtype=torch.bfloat16))
    assert not suits_int8_linear(torch.ones(0, 64, dtype=torch.bfloat16))
    assert not suits_int8_linear(torch.ones(1, 0, dtype=torch.bfloat16))
    for dtype in (torch.float32, torch.float16, torch.float64):
        assert not suits_int8_linear(torch.ones(1, 64, dtype=dtype))
    assert not suits_int8_linear(torch.ones(1, 64, dtype=torch.bfloat16, device="meta"))
