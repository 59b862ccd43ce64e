"""The learning rate as a pure function of the step, so that a resume needs no scheduler state.

Steps count from 1. Warm-up rises linearly and reaches the full rate at its last step: `lr * step / warmup`; its first
step is small, not zero. After it, with `t` from 0 towards 1 over the remaining steps,

    constant  lr
    linear    lr * (1 - t)
    cosine    lr * (floor + (1 - floor) * (1 + cos(pi * t)) / 2)

The decay equals `transformers.get_cosine_schedule_with_warmup` and its linear sister, whose first warm-up step is 0.

References:
    I. Loshchilov, F. Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017,
    https://arxiv.org/abs/1608.03983.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bedstone.train.config import TrainConfig

Kind = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate of each step.

    Args:
        kind: The shape after the warm-up.
        peak: The full learning rate.
        total: Steps of the run.
        warmup: Steps of the warm-up, below `total`.
        floor: For cosine, the share of `peak` that it falls to, 0 to 1.

    >>> schedule = Schedule("linear", peak=1.0, total=6, warmup=2)
    >>> [schedule.lr(step) for step in range(1, 7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """

    kind: Kind
    peak: float
    total: int
    warmup: int = 0
    floor: float = 0.0

    @classmethod
    def of(cls, config: TrainConfig, total: int) -> Schedule:
        """Return the schedule that a configuration asks for, over `total` steps."""
        warmup = config.warmup_steps
        if warmup is None:
            warmup = math.ceil((config.warmup_ratio or 0.0) * total)
        return cls(
            config.lr_scheduler, config.learning_rate, total, min(warmup, total), config.cosine_min_lr_ratio or 0.0
        )

    def lr(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        if step <= self.warmup:
            return self.peak * step / self.warmup
        t = (step - 1 - self.warmup) / max(1, self.total - self.warmup)
        if self.kind == "linear":
            return self.peak * (1 - t)
        if self.kind == "cosine":
            return self.peak * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * t)) / 2)
        return self.peak
