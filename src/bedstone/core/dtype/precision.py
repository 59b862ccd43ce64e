"""The three ways to train in mixed precision, and what each one asks for.

Multiplications run in the compute dtype. Master weights, to which the optimizer adds its small steps, always stay in
float32: bfloat16 has 8 significant bits, so a step below a 512th of a weight always vanishes. float16 reaches down to
6e-8 only, so small gradients would vanish too, unless the loss is scaled up before the backward pass.
"""

from __future__ import annotations

from enum import Enum

import torch

from bedstone.core.dtype.names import dtype_name
from bedstone.core.errors import UnknownNameError


class PrecisionMode(Enum):
    """How to compute during training; `PrecisionMode("bf16")` finds one by its name, in any case.

    Raises:
        UnknownNameError: No mode is called so.

    >>> PrecisionMode("bf16") is PrecisionMode.BF16
    True
    >>> PrecisionMode.FP16.compute_dtype, PrecisionMode.FP16.master_dtype, PrecisionMode.FP16.needs_loss_scaling
    (torch.float16, torch.float32, True)

    References:
        Micikevicius et al., "Mixed Precision Training", 2018, https://arxiv.org/abs/1710.03740.
    """

    FULL = "full"
    BF16 = "bf16"
    FP16 = "fp16"

    @classmethod
    def _missing_(cls, value: object) -> PrecisionMode:
        by_name = {mode.value: mode for mode in cls}
        folded = str(value).lower()
        if folded not in by_name:
            raise UnknownNameError("precision mode", str(value), by_name)
        return by_name[folded]

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of multiplications and activations."""
        return {"full": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.value]

    @property
    def master_dtype(self) -> torch.dtype:
        """The dtype of the weights that the optimizer changes: `float32` in every mode."""
        return torch.float32

    @property
    def needs_loss_scaling(self) -> bool:
        """Whether small gradients underflow unless the loss is scaled up: only in float16."""
        return self is PrecisionMode.FP16

    def __str__(self) -> str:
        return f"{self.value} (computes in {dtype_name(self.compute_dtype)})"
