"""What one run holds in memory while it trains, and what of it a checkpoint keeps."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from bedstone.kernels import chosen_kernels, current_policy
from bedstone.kernels.native import status
from bedstone.repro import capture_rng, restore_rng
from bedstone.train.adapter import trainable
from bedstone.train.signals import StopRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bedstone.repro import CheckpointStore, SeedTree
    from bedstone.train.config import TrainConfig
    from bedstone.train.data import DataSplit
    from bedstone.train.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Measured:
    """What the model can do at one moment: the held-out loss, and its answer to each sample prompt.

    A checkpoint keeps what was measured before the first step, so that a resumed run need not measure it again.
    """

    loss: float | None = None
    answers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Session:
    """A loaded run: everything the loop works on.

    Attributes:
        step: Steps taken so far.
        steps_per_epoch: Optimizer steps in one pass over the data; the last may be smaller.
        autocast_dtype: Dtype of the matrix products where it is not that of the weights.
        saved_step: The step of the newest checkpoint, 0 when there is none.
        before: What was measured before the first step.
    """

    name: str
    config: TrainConfig
    device: torch.device
    autocast_dtype: torch.dtype | None
    model: Any
    tokenizer: PreTrainedTokenizerBase
    train: DataSplit
    heldout: DataSplit | None
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    steps_per_epoch: int
    seeds: SeedTree
    store: CheckpointStore
    stop: StopRequest = field(default_factory=StopRequest)
    step: int = 0
    saved_step: int = 0
    before: Measured = field(default_factory=Measured)

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.schedule.total


def conditions(device: torch.device) -> dict[str, str | int]:
    """Return what bit-equality depends on besides configuration and data."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "kernels": f"{current_policy()}, {status().isa or 'plain torch'}",
    }


def snapshot(session: Session, bound: dict[str, Any]) -> dict[str, Any]:
    """Return the state that a checkpoint keeps.

    Args:
        session: Between two steps.
        bound: What ties the checkpoint to its run (see `resume.ties`).
    """
    epoch, window = divmod(session.step, session.steps_per_epoch)
    return {
        "parameters": {name: p.detach() for name, p in trainable(session.model).items()},
        "optimizer": session.optimizer.state_dict(),
        "scheduler": {"step": session.step, "lr": session.schedule.lr(max(1, session.step))},
        "position": {"step": session.step, "epoch": epoch, "window": window},
        "rng": capture_rng(),
        "before": asdict(session.before),
        "kernels": chosen_kernels(),
        **bound,
    }


def restore(session: Session, state: dict[str, Any]) -> None:
    """Put a checkpoint's state into a freshly loaded session of the same configuration.

    Random generators come last: nothing after them may draw before the first step.
    """
    with torch.no_grad():
        for name, parameter in trainable(session.model).items():
            parameter.copy_(state["parameters"][name])
    session.optimizer.load_state_dict(state["optimizer"])
    session.step = session.saved_step = state["position"]["step"]
    session.before = Measured(**state["before"])
    restore_rng(state["rng"])
