"""From facts to rows: one a visible device in order of ordinals, then one a GPU that this process cannot address."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bedstone.core.device.cuda.blockers import Finding, find_blocker, mask_variables
from bedstone.core.device.cuda.condition import find_fault
from bedstone.core.device.cuda.visible import Target, visible_targets
from bedstone.core.device.reasons import Reason
from bedstone.core.device.report import DeviceRow

if TYPE_CHECKING:
    from bedstone.core.device.cuda.facts import CudaFacts

_ORDER_REMEDY = "Set CUDA_DEVICE_ORDER=PCI_BUS_ID, or list UUIDs in CUDA_VISIBLE_DEVICES, before the process starts."


def diagnose_cuda(facts: CudaFacts) -> tuple[DeviceRow, ...]:
    """Return the verdicts that follow from `facts`; reads nothing else.

    >>> from bedstone.core.device.cuda.facts import CudaFacts
    >>> [row.code for row in diagnose_cuda(CudaFacts(torch_version="2.13.0+cpu", pci=()))]
    [<Reason.NO_DEVICE: 'NO_DEVICE'>]
    """
    base = _base(facts)
    blocker = find_blocker(facts)
    if blocker is not None:
        hidden = [_described(base, Target(gpu)) for gpu in facts.gpus] or [base]
        return tuple(_judged(row, blocker) for row in hidden)
    targets = visible_targets(facts.gpus, [value for _, value in mask_variables(facts)]).targets
    counted = facts.initialized_count
    if not facts.gpus or (counted is not None and counted != len(targets)):
        return _unidentified(base, facts)
    if _order_unknown(facts):
        return _in_unknown_order(base, facts, targets)
    seen = [_addressed(base, facts, target, ordinal) for ordinal, target in enumerate(targets)]
    return (*seen, *_not_addressed(base, facts, targets))


def _base(facts: CudaFacts) -> DeviceRow:
    kind = {"cuda": "CUDA", "hip": "HIP"}.get(facts.runtime or "")
    masks = mask_variables(facts)
    return DeviceRow(
        backend="cuda",
        verdict="usable",
        reason="Nothing that could be read speaks against it.",
        driver=facts.driver.version,
        runtime=f"{kind} {facts.runtime_version}" if kind else None,
        mask=" ".join(f"{name}={value}" for name, value in masks) or None,
    )


def _described(base: DeviceRow, target: Target) -> DeviceRow:
    gpu, mig = target.gpu, target.mig
    memory = mig or gpu
    return replace(
        base,
        name=mig.name if mig else gpu.name,
        uuid=mig.uuid if mig else gpu.uuid,
        parent=gpu.uuid if mig else None,
        pci_id=gpu.pci_id,
        total_bytes=memory.total_bytes,
        free_bytes=memory.free_bytes,
        capability=gpu.capability,
    )


def _judged(row: DeviceRow, finding: Finding | None) -> DeviceRow:
    if finding is None:
        return row
    return replace(row, verdict=finding.verdict, code=finding.code, reason=finding.reason, remedy=finding.remedy)


def _numbered(row: DeviceRow, ordinal: int) -> DeviceRow:
    return replace(row, ordinal=ordinal, device=f"cuda:{ordinal}")


def _addressed(base: DeviceRow, facts: CudaFacts, target: Target, ordinal: int) -> DeviceRow:
    return _judged(_numbered(_described(base, target), ordinal), find_fault(facts, target))


def _not_addressed(base: DeviceRow, facts: CudaFacts, seen: tuple[Target, ...]) -> list[DeviceRow]:
    rows: list[DeviceRow] = []
    for gpu in facts.gpus:
        everything = [Target(gpu), *(Target(gpu, mig) for mig in gpu.mig)]
        hidden = [target for target in everything if target not in seen]
        rows += [_judged(_described(base, target), _why_hidden(base, target, seen)) for target in hidden]
    return rows


def _why_hidden(base: DeviceRow, target: Target, seen: tuple[Target, ...]) -> Finding:
    if target.gpu.mig_enabled and target.mig is None:
        count = len(target.gpu.mig)
        reason = f"This GPU is partitioned (MIG, {count} instances); only an instance can be used."
        remedy = "Name an instance in CUDA_VISIBLE_DEVICES." if count else "Create an instance, or switch MIG off."
        return Finding(Reason.MIG_PARENT_ONLY, reason, remedy)
    if target.mig is not None and base.mask is None:
        reason = f"A process sees one MIG instance or whole GPUs; here it sees {len(seen)} other device(s)."
    else:
        reason = f"{base.mask} hides it from this process."
    name = target.mig.uuid if target.mig else target.gpu.uuid or str(target.gpu.index)
    variable = (base.mask or "CUDA_VISIBLE_DEVICES=").split()[0].split("=")[0]
    return Finding(Reason.MASKED, reason, f"Start the process with {variable}={name}.")


def _unidentified(base: DeviceRow, facts: CudaFacts) -> tuple[DeviceRow, ...]:
    """PyTorch counts devices that nothing describes, or nothing lists any."""
    if facts.initialized_count:
        reason = "PyTorch has initialised CUDA and counts it; nothing else about it could be read."
        return tuple(_numbered(replace(base, reason=reason), number) for number in range(facts.initialized_count))
    finding = Finding(
        Reason.GPUS_UNKNOWN,
        f"The driver is there, but nothing lists its GPUs ({facts.driver.listing_error or 'no list found'}).",
        "Make NVML available (the driver's `utility` part), or call `torch.cuda.init()` first and ask again with "
        "`refresh=True`.",
    )
    return (_judged(base, finding),)


def _order_unknown(facts: CudaFacts) -> bool:
    """CUDA numbers the fastest GPU first by a rule of its own, the driver by address; equal GPUs make no difference."""
    by_uuid = (facts.variable("CUDA_VISIBLE_DEVICES") or "").startswith(("GPU-", "MIG-"))
    by_address = facts.variable("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    masked = facts.variable("CUDA_VISIBLE_DEVICES") is not None
    # Without a mask whole GPUs are seen alone; with one, its numbers count the partitioned ones too.
    kinds = {(gpu.name, gpu.capability) for gpu in facts.gpus if gpu.name and (masked or not gpu.mig_enabled)}
    return facts.runtime == "cuda" and len(kinds) > 1 and not by_uuid and not by_address


def _in_unknown_order(base: DeviceRow, facts: CudaFacts, seen: tuple[Target, ...]) -> tuple[DeviceRow, ...]:
    names = ", ".join(sorted({gpu.name for gpu in facts.gpus}))
    faults = [find_fault(facts, target) for target in seen]
    note = f"{Reason.ORDER_UNKNOWN}: which of {names} has this number is CUDA's choice. {_ORDER_REMEDY}"
    sound = replace(base, notes=(note,)) if None in faults else _judged(base, next(iter(faults), None))
    finding = Finding(
        Reason.ORDER_UNKNOWN,
        "The GPUs differ and CUDA chooses their order, so which number this one has is not known.",
        _ORDER_REMEDY,
    )
    whole = (_judged(_described(base, Target(gpu)), finding) for gpu in facts.gpus if not gpu.mig_enabled)
    parts = replace(facts, gpus=tuple(gpu for gpu in facts.gpus if gpu.mig_enabled))
    numbered = (_numbered(sound, number) for number in range(len(seen)))
    return (*numbered, *whole, *_not_addressed(base, parts, ()))
