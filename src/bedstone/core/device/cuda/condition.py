"""What is wrong with one GPU that this process sees: given up, forbidden, occupied, or too old or new for the build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.core.device.cuda.architectures import supports
from bedstone.core.device.cuda.blockers import INSTALL, Finding
from bedstone.core.device.reasons import Reason

if TYPE_CHECKING:
    from bedstone.core.device.cuda.facts import CudaFacts, GpuFacts
    from bedstone.core.device.cuda.visible import Target


def find_fault(facts: CudaFacts, target: Target) -> Finding | None:
    """Return why this GPU or instance cannot be used, `None` when nothing speaks against it.

    >>> from bedstone.core.device.cuda.facts import CudaFacts, GpuFacts
    >>> from bedstone.core.device.cuda.visible import Target
    >>> facts = CudaFacts(torch_version="2.13.0", runtime="cuda", built_archs=("sm_80",))
    >>> find_fault(facts, Target(GpuFacts(index=0, capability="6.1"))).code
    <Reason.ARCH_UNSUPPORTED: 'ARCH_UNSUPPORTED'>
    """
    gpu = target.gpu
    return _given_up(gpu) or _forbidden(gpu) or _occupied(facts, gpu) or _no_kernels(facts, gpu)


def _given_up(gpu: GpuFacts) -> Finding | None:
    if gpu.fault is None:
        return None
    remedy = "Read the kernel log (`dmesg | grep -i xid`) and reset the GPU or restart the machine."
    return Finding(Reason.ECC_OR_XID, f"The driver reports a fault: {gpu.fault}.", remedy)


def _forbidden(gpu: GpuFacts) -> Finding | None:
    if gpu.compute_mode != "prohibited":
        return None
    remedy = f"As administrator: `nvidia-smi -i {gpu.index} -c DEFAULT`."
    return Finding(Reason.COMPUTE_PROHIBITED, "Its compute mode is Prohibited: no process may compute on it.", remedy)


def _occupied(facts: CudaFacts, gpu: GpuFacts) -> Finding | None:
    # Once this process has initialised CUDA, the one process may be this one.
    if gpu.compute_mode != "exclusive_process" or not gpu.processes or facts.initialized:
        return None
    reason = f"Its compute mode is Exclusive Process, and {gpu.processes} process(es) compute on it."
    return Finding(
        Reason.EXCLUSIVE_PROCESS_BUSY, reason, "Wait for that process (`nvidia-smi` names it), or take another GPU."
    )


def _no_kernels(facts: CudaFacts, gpu: GpuFacts) -> Finding | None:
    # ROCm's own variable makes a GPU pass for another; the user answers for it.
    overridden = facts.runtime == "hip" and facts.variable("HSA_OVERRIDE_GFX_VERSION") is not None
    if gpu.capability is None or overridden or supports(gpu.capability, facts.built_archs):
        return None
    built_for = ", ".join(facts.built_archs)
    reason = f"PyTorch {facts.torch_version} holds no kernels for {gpu.capability}; it is built for {built_for}."
    return Finding(
        Reason.ARCH_UNSUPPORTED, reason, f"Install a PyTorch build that includes {gpu.capability}: {INSTALL}."
    )
