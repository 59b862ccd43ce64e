"""Which GPUs a process sees, in which order: our own reading of `CUDA_VISIBLE_DEVICES` and its AMD relatives.

The rules are the driver's. Entries are numbers or beginnings of UUIDs. The list ends at the first entry that names
nothing. An entry that comes twice empties the list. Like C's `strtoul`, a number may have a tail: `1gpu2` is 1. An empty
value hides everything. A process gets one MIG instance: the first visible one, and none beside whole GPUs.

References:
    NVIDIA, CUDA Programming Guide, "CUDA Environment Variables",
    https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
    PyTorch 2.13, `torch/cuda/__init__.py`, `_parse_visible_devices`
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bedstone.core.device.cuda.facts import GpuFacts, MigFacts

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """Something that can be an ordinal: a GPU, or one MIG instance of it."""

    gpu: GpuFacts
    mig: MigFacts | None = None


@dataclass(frozen=True, slots=True)
class Visible:
    """What a process sees.

    Attributes:
        targets: In the order of their ordinals.
        stopped_at: The entry that ended the list, or that came twice; `None` when the whole list counted.
    """

    targets: tuple[Target, ...]
    stopped_at: str | None = None


def visible_targets(gpus: Sequence[GpuFacts], masks: Sequence[str]) -> Visible:
    """Return what is visible after each mask in turn has chosen from what the one before left.

    Args:
        gpus: What the driver lists.
        masks: Values of the variables that are set, outermost first; empty when none is.

    >>> from bedstone.core.device.cuda.facts import GpuFacts
    >>> gpus = [GpuFacts(index=0, uuid="GPU-aa"), GpuFacts(index=1, uuid="GPU-bb")]
    >>> [target.gpu.uuid for target in visible_targets(gpus, ["GPU-b,0"]).targets]
    ['GPU-bb']
    >>> visible_targets(gpus, ["1,7,0"]).stopped_at
    '7'
    """
    left = [Target(gpu) for gpu in gpus]
    stopped_at = None
    for mask in masks:
        left, stopped = _apply(left, mask)
        stopped_at = stopped_at or stopped
    return Visible(_one_instance_or_gpus(left), stopped_at)


def _apply(targets: list[Target], mask: str) -> tuple[list[Target], str | None]:
    chosen: list[Target] = []
    entries = [entry.strip() for entry in mask.split(",")] if mask.strip() else []
    # The first entry decides the kind of the whole list: names, or numbers.
    by_name = bool(entries) and entries[0].startswith(("GPU-", "MIG-"))
    for entry in entries:
        target = _named(targets, entry) if by_name else _numbered(targets, entry)
        if target is None:
            return chosen, entry
        if target in chosen:
            return [], entry
        chosen.append(target)
    return chosen, None


def _numbered(targets: list[Target], entry: str) -> Target | None:
    digits = re.match(r"\+?(\d+)", entry, re.ASCII)
    number = int(digits[1]) if digits else -1
    return targets[number] if 0 <= number < len(targets) else None


def _named(targets: list[Target], entry: str) -> Target | None:
    instances = [Target(target.gpu, mig) for target in targets for mig in target.gpu.mig]
    matching = [target for target in targets + instances if is_named(target, entry)]
    return matching[0] if len(matching) == 1 else None


def is_named(target: Target, name: str) -> bool:
    """Tell whether `name` is the beginning of the target's UUID, or the older name of its MIG instance."""
    uuid = target.mig.uuid if target.mig else target.gpu.uuid
    if uuid is not None and uuid.lower().startswith(name.lower()):
        return True
    older = re.fullmatch(r"MIG-(GPU-[^/]+)/(\d+)/(\d+)", name)
    if older is None or target.mig is None:
        return False
    numbers = (target.mig.gpu_instance, target.mig.compute_instance)
    return target.gpu.uuid == older[1] and numbers == (int(older[2]), int(older[3]))


def _one_instance_or_gpus(targets: list[Target]) -> tuple[Target, ...]:
    named = [target for target in targets if target.mig is not None]
    if named and targets[0] is named[0]:
        return (named[0],)
    whole = tuple(target for target in targets if target.mig is None and not target.gpu.mig_enabled)
    instances = (Target(target.gpu, mig) for target in targets if target.mig is None for mig in target.gpu.mig)
    return whole or tuple(instances)[:1]
