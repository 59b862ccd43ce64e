"""What can go wrong with packed weights, beside the errors of `core`.

CoreError
└── QuantizationError         ValueError      a weight that a scheme cannot hold; `scheme`, and facts
├── NonFiniteWeightError                  NaN or infinity; `position` and `value` of the first
└── PackedWriteError      RuntimeError    a write that would be lost or cannot be kept; `op`
"""

from __future__ import annotations

import math
from typing import Any

from bedstone.core.errors import CoreError


class QuantizationError(CoreError, ValueError):
    """What a scheme cannot hold or a packed weight cannot do; nothing was changed.

    Attributes:
        scheme: The name of the scheme.

    >>> raise QuantizationError("int8 holds floating-point weights, not torch.int64.", scheme="int8")
    Traceback (most recent call last):
    bedstone.quant.errors.QuantizationError: int8 holds floating-point weights, not torch.int64.
    """

    code = "quantization"
    scheme: str

    def __init__(self, message: str, *, scheme: str, remedy: str = "", **facts: Any) -> None:
        super().__init__(message, remedy=remedy, scheme=scheme, **facts)


class NonFiniteWeightError(QuantizationError):
    """A weight that is NaN or infinite, or that float32 cannot hold; one would spoil the scale of its whole block.

    Attributes:
        position: Index of the first one.
        value: The value there.

    >>> error = NonFiniteWeightError(scheme="nf4", position=(0, 3), value=float("inf"))
    >>> print(error)
    nf4 holds finite weights, but the one at (0, 3) is inf. Find out where it comes from; the model is damaged.
    """

    code = "non_finite_weight"
    position: tuple[int, ...]
    value: float

    def __init__(self, *, scheme: str, position: tuple[int, ...], value: float) -> None:
        where = f"({', '.join(map(str, position))})"
        what = "weights that float32 can hold" if math.isfinite(value) else "finite weights"
        super().__init__(
            f"{scheme} holds {what}, but the one at {where} is {value}.",
            scheme=scheme,
            remedy="Find out where it comes from; the model is damaged.",
            position=position,
            value=value,
        )


class PackedWriteError(QuantizationError, RuntimeError):
    """A write that a packed weight cannot keep.

    Attributes:
        op: The operation that would have written.

    >>> raise PackedWriteError("A view of a packed weight is a copy.", scheme="nf4", op="mul_", remedy="Write to the weight.")
    Traceback (most recent call last):
    bedstone.quant.errors.PackedWriteError: A view of a packed weight is a copy. Write to the weight.
    """

    code = "packed_write"
    op: str

    def __init__(self, message: str, *, scheme: str, op: str, remedy: str = "", **facts: Any) -> None:
        super().__init__(message, scheme=scheme, remedy=remedy, op=op, **facts)
