"""The errors of packed weights keep the contract of `CoreError`."""

from __future__ import annotations

from bedstone.quant import NonFiniteWeightError, PackedWriteError, QuantizationError
from bedstone.testing import check_error


def test_each_keeps_the_contract():
    """Facts, copies, JSON, and the built-in that a caller expects."""
    check_error(QuantizationError, message="int8 holds floating-point weights.", scheme="int8", remedy="Convert it.")
    check_error(NonFiniteWeightError, scheme="nf4", position=(0, 3), value=2.5)
    check_error(PackedWriteError, message="mul_ would write to a view of nf4.", scheme="nf4", op="mul_")


def test_says_whether_a_weight_is_infinite_or_only_too_large():
    """float64 holds 1e300, and every scheme computes in float32."""
    assert str(NonFiniteWeightError(scheme="nf4", position=(0, 3), value=float("-inf"))) == (
        "nf4 holds finite weights, but the one at (0, 3) is -inf. Find out where it comes from; the model is damaged."
    )
    assert str(NonFiniteWeightError(scheme="nf4", position=(7,), value=1e300)) == (
        "nf4 holds weights that float32 can hold, but the one at (7) is 1e+300. "
        "Find out where it comes from; the model is damaged."
    )
