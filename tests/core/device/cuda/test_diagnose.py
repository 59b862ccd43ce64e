"""Verdicts on NVIDIA and AMD GPUs, from facts alone.

The facts are composed by hand after the vendors' documentation; none was recorded on a machine with a GPU yet, which the
docs call "unverified".
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from bedstone.core.device import DeviceConfig, choose
from bedstone.core.device.cuda import CudaBackend, CudaFacts, DriverFacts, GpuFacts, MigFacts
from bedstone.core.device.cuda.diagnose import diagnose_cuda
from bedstone.core.device.pci import PciDevice
from bedstone.testing.backend import check_backend

GIB = 2**30
H100 = GpuFacts(
    index=0,
    name="NVIDIA H100 80GB HBM3",
    uuid="GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
    pci_id="0000:3b:00.0",
    total_bytes=80 * GIB,
    free_bytes=79 * GIB,
    capability="9.0",
    compute_mode="default",
    processes=0,
)
SECOND = replace(H100, index=1, uuid="GPU-0c1d2e3f-1111-2222-3333-444455556666", pci_id="0000:5e:00.0")
P40 = replace(H100, index=1, name="Tesla P40", uuid="GPU-00aa11bb", capability="6.1", pci_id="0000:5e:00.0")
SMALL = MigFacts(uuid="MIG-aaaa1111", name="NVIDIA H100 80GB HBM3 MIG 1g.10gb", gpu_instance=9, compute_instance=0)
OTHER = replace(SMALL, uuid="MIG-bbbb2222", gpu_instance=11, total_bytes=10 * GIB, free_bytes=9 * GIB)
SPLIT = replace(H100, mig_enabled=True, mig=(SMALL, OTHER))
PCI = (
    PciDevice(address="0000:3b:00.0", vendor="nvidia", device="2330"),
    PciDevice(address="0000:5e:00.0", vendor="nvidia", device="2330"),
)
DRIVER = DriverFacts(
    library=True, version="580.65.06", cuda="13.0", nodes=("/dev/nvidia0", "/dev/nvidia1"), listed_by="nvml"
)
TWO = CudaFacts(
    torch_version="2.13.0+cu130",
    runtime="cuda",
    runtime_version="13.0",
    built_archs=("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"),
    pci=PCI,
    driver=DRIVER,
    gpus=(H100, SECOND),
)
ONE = replace(TWO, gpus=(H100,), pci=PCI[:1])
BARE = CudaFacts(torch_version="2.13.0+cpu", pci=())
AMD = CudaFacts(
    torch_version="2.13.0+rocm7.0",
    runtime="hip",
    runtime_version="7.0.2",
    built_archs=("gfx90a", "gfx942", "gfx1100"),
    pci=(PciDevice(address="0000:c1:00.0", vendor="amd", device="74a1"),),
    driver=DriverFacts(library=True, version="6.14.14", nodes=("/dev/kfd",), listed_by="kfd"),
    gpus=tuple(
        GpuFacts(index=index, name="AMD Instinct MI300X", uuid=f"GPU-{index:016x}", capability="gfx942")
        for index in range(3)
    ),
)


def set_variables(facts, **variables):
    return replace(facts, environment=tuple(variables.items()))


def driver(facts, **changes):
    return replace(facts, driver=replace(facts.driver, **changes))


MASKED = set_variables(TWO, CUDA_VISIBLE_DEVICES="1")
MIXED = replace(TWO, gpus=(H100, P40))
OLD_DRIVER = driver(ONE, version="535.54.03", cuda="12.2")
PARTITIONED = replace(ONE, gpus=(SPLIT,))

CASES = {
    "cpu build, no GPU": (BARE, ["absent NO_DEVICE"]),
    "cpu build, GPU": (replace(BARE, pci=PCI), ["unusable TORCH_CPU_BUILD"]),
    "cpu build, GPUs listed": (replace(BARE, pci=PCI, gpus=(H100, SECOND)), ["unusable TORCH_CPU_BUILD"] * 2),
    "cpu build, bus unknown": (replace(BARE, pci=None), ["absent TORCH_CPU_BUILD"]),
    "cpu build under WSL": (
        replace(BARE, driver=DriverFacts(library=True, nodes=("/dev/dxg",))),
        ["unusable TORCH_CPU_BUILD"],
    ),
    "cuda build, no GPU": (replace(ONE, pci=(), gpus=(), driver=DriverFacts(nodes=())), ["absent NO_DEVICE"]),
    "cuda build, AMD GPU only": (
        replace(ONE, pci=AMD.pci, gpus=(), driver=DriverFacts(nodes=())),
        ["absent NO_DEVICE"],
    ),
    "no driver library": (
        replace(ONE, gpus=(), driver=DriverFacts(library_error="libcuda.so.1: no such file", nodes=())),
        ["unusable NO_DRIVER_LIB"],
    ),
    "no device file": (driver(replace(ONE, gpus=()), nodes=()), ["unusable NO_DEVICE_NODE"]),
    "device file denied": (driver(ONE, nodes_denied=("/dev/nvidia0",)), ["unusable DEVICE_NODE_DENIED"]),
    "kernel module away": (
        driver(replace(ONE, gpus=()), listing_error="DRIVER_NOT_LOADED: NVML does not start: error 9"),
        ["unusable DRIVER_NOT_LOADED"],
    ),
    "driver updated, not restarted": (
        driver(replace(ONE, gpus=()), listing_error="DRIVER_MISMATCH: NVML does not start: error 18"),
        ["unusable DRIVER_MISMATCH"],
    ),
    "driver too old": (OLD_DRIVER, ["unusable DRIVER_TOO_OLD"]),
    "driver a minor version behind": (driver(replace(ONE, runtime_version="13.2")), ["usable OK"]),
    "nothing lists the GPUs": (
        driver(replace(ONE, gpus=()), listed_by="", listing_error="GPUS_UNKNOWN: NVML does not load"),
        ["unusable GPUS_UNKNOWN"],
    ),
    "nothing lists them, CUDA initialised": (
        replace(ONE, gpus=(), initialized=True, initialized_count=2),
        ["usable OK", "usable OK"],
    ),
    "listed, but CUDA was initialised with another mask": (
        replace(TWO, initialized=True, initialized_count=1),
        ["usable OK"],
    ),
    "two good ones": (TWO, ["usable OK", "usable OK"]),
    "masked": (MASKED, ["usable OK", "unusable MASKED"]),
    "mask empty": (set_variables(TWO, CUDA_VISIBLE_DEVICES=""), ["unusable VISIBLE_DEVICES_EMPTY"] * 2),
    "mask -1": (set_variables(TWO, CUDA_VISIBLE_DEVICES="-1"), ["unusable VISIBLE_DEVICES_EMPTY"] * 2),
    "mask invalid": (set_variables(TWO, CUDA_VISIBLE_DEVICES="two,0"), ["unusable VISIBLE_DEVICES_INVALID"] * 2),
    "mask ends early": (set_variables(TWO, CUDA_VISIBLE_DEVICES="1,7,0"), ["usable OK", "unusable MASKED"]),
    "forked": (replace(TWO, forked_after_init=True), ["unusable FORK_AFTER_INIT"] * 2),
    "architecture too old": (replace(ONE, gpus=(replace(P40, index=0),)), ["unusable ARCH_UNSUPPORTED"]),
    "occupied": (
        replace(ONE, gpus=(replace(H100, compute_mode="exclusive_process", processes=1),)),
        ["unusable EXCLUSIVE_PROCESS_BUSY"],
    ),
    "exclusive and free": (replace(ONE, gpus=(replace(H100, compute_mode="exclusive_process"),)), ["usable OK"]),
    "exclusive and ours": (
        replace(
            ONE,
            gpus=(replace(H100, compute_mode="exclusive_process", processes=1),),
            initialized=True,
            initialized_count=1,
        ),
        ["usable OK"],
    ),
    "forbidden": (replace(ONE, gpus=(replace(H100, compute_mode="prohibited"),)), ["unusable COMPUTE_PROHIBITED"]),
    "lost": (replace(ONE, gpus=(GpuFacts(index=0, fault="it is lost"),)), ["unusable ECC_OR_XID"]),
    "partitioned": (PARTITIONED, ["usable OK", "unusable MIG_PARENT_ONLY", "unusable MASKED"]),
    "partitioned, no instance": (
        replace(ONE, gpus=(replace(SPLIT, mig=()),)),
        ["unusable MIG_PARENT_ONLY"],
    ),
    "partitioned, instance named": (
        set_variables(PARTITIONED, CUDA_VISIBLE_DEVICES="MIG-bbbb2222"),
        ["usable OK", "unusable MIG_PARENT_ONLY", "unusable MASKED"],
    ),
    "different GPUs, order unknown": (MIXED, ["usable OK"] * 2 + ["unusable ORDER_UNKNOWN"] * 2),
    "different GPUs, order known": (
        set_variables(MIXED, CUDA_DEVICE_ORDER="PCI_BUS_ID"),
        ["usable OK", "unusable ARCH_UNSUPPORTED"],
    ),
    "amd": (AMD, ["usable OK"] * 3),
    "amd masked twice": (
        set_variables(AMD, ROCR_VISIBLE_DEVICES="2,1", HIP_VISIBLE_DEVICES="1"),
        ["usable OK", "unusable MASKED", "unusable MASKED"],
    ),
    "amd reads CUDA's variable": (
        set_variables(AMD, CUDA_VISIBLE_DEVICES="0"),
        ["usable OK", "unusable MASKED", "unusable MASKED"],
    ),
    "amd, no kernels": (replace(AMD, built_archs=("gfx90a",)), ["unusable ARCH_UNSUPPORTED"] * 3),
    "amd, passes for another": (
        set_variables(replace(AMD, built_archs=("gfx90a",)), HSA_OVERRIDE_GFX_VERSION="9.0.10"),
        ["usable OK"] * 3,
    ),
    "amd, not in the group": (driver(AMD, nodes_denied=("/dev/kfd",)), ["unusable DEVICE_NODE_DENIED"] * 3),
    "amd, no kfd": (driver(replace(AMD, gpus=()), nodes=()), ["unusable NO_DEVICE_NODE"]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_machine_gets_its_verdicts(case):
    """One row a candidate: visible ones first, in the order of their numbers."""
    facts, expected = CASES[case]
    assert [f"{row.verdict} {row.code}" for row in diagnose_cuda(facts)] == expected


def test_every_machine_keeps_the_contract():
    """The kit that plug-ins run, on all of these facts."""
    check_backend(CudaBackend(), recorded=[facts for facts, _ in CASES.values()])


def first(case):
    return diagnose_cuda(CASES[case][0])[0]


SENTENCES = {
    "cpu build, no GPU": (
        (
            "This machine has no NVIDIA or AMD GPU: none on the PCI bus, no device file in /dev, and PyTorch 2.13.0+cpu is "
            "built without CUDA and ROCm."
        ),
        (
            "To use a GPU, run on a machine that has one, with a PyTorch build for it "
            "(https://pytorch.org/get-started/locally/)."
        ),
    ),
    "cuda build, no GPU": (
        "This machine has no NVIDIA GPU: none on the PCI bus, no device file in /dev.",
        (
            "To use a GPU, run on a machine that has one, with a PyTorch build for it "
            "(https://pytorch.org/get-started/locally/)."
        ),
    ),
    "cpu build, GPU": (
        (
            "There is GPU hardware (nvidia at 0000:3b:00.0, nvidia at 0000:5e:00.0), but PyTorch 2.13.0+cpu is built without "
            "CUDA and ROCm."
        ),
        "Install a PyTorch build with CUDA or ROCm: https://pytorch.org/get-started/locally/.",
    ),
    "cpu build, bus unknown": (
        "PyTorch 2.13.0+cpu is built without CUDA and ROCm; whether this machine has a GPU could not be read.",
        "Install a PyTorch build with CUDA or ROCm: https://pytorch.org/get-started/locally/.",
    ),
    "no driver library": (
        "The GPU driver cannot be loaded: libcuda.so.1: no such file. Hardware: nvidia at 0000:3b:00.0.",
        "Install the NVIDIA driver; in a container, start it with --gpus all.",
    ),
    "no device file": (
        "The driver is installed, but there is no device file such as /dev/nvidia0.",
        "In a container, start it with --gpus all; otherwise load the kernel module.",
    ),
    "device file denied": (
        "This user may not open /dev/nvidia0.",
        "Add the user to the group that owns them, often video, and log in again.",
    ),
    "kernel module away": (
        "The NVIDIA kernel driver does not answer. NVML does not start: error 9.",
        "Load the kernel module (`sudo modprobe nvidia`), or install the driver again for this kernel.",
    ),
    "driver updated, not restarted": (
        "The NVIDIA kernel driver does not answer. NVML does not start: error 18.",
        "Restart the machine: the driver was updated while it ran.",
    ),
    "driver too old": (
        "The driver 535.54.03 serves CUDA up to 12.2; PyTorch is built for 13.0.",
        "Update the driver, or install a PyTorch build for CUDA 12: https://pytorch.org/get-started/locally/.",
    ),
    "nothing lists the GPUs": (
        "The driver is there, but nothing lists its GPUs (GPUS_UNKNOWN: NVML does not load).",
        (
            "Make NVML available (the driver's `utility` part), or call `torch.cuda.init()` first and ask again with "
            "`refresh=True`."
        ),
    ),
    "mask empty": (
        "CUDA_VISIBLE_DEVICES='' hides every GPU from this process.",
        "Unset CUDA_VISIBLE_DEVICES, or name a GPU in it.",
    ),
    "mask invalid": (
        "CUDA_VISIBLE_DEVICES='two,0' hides every GPU: the entry 'two' names none of the 2, or comes twice.",
        "Use numbers below 2, or UUIDs from `nvidia-smi -L`.",
    ),
    "forked": (
        "This process was forked from one that had already initialised CUDA; CUDA cannot be used here.",
        'Start workers with the "spawn" method, or fork before using CUDA.',
    ),
    "architecture too old": (
        "PyTorch 2.13.0+cu130 holds no kernels for 6.1; it is built for sm_75, sm_80, sm_86, sm_90, sm_100, sm_120.",
        "Install a PyTorch build that includes 6.1: https://pytorch.org/get-started/locally/.",
    ),
    "occupied": (
        "Its compute mode is Exclusive Process, and 1 process(es) compute on it.",
        "Wait for that process (`nvidia-smi` names it), or take another GPU.",
    ),
    "forbidden": (
        "Its compute mode is Prohibited: no process may compute on it.",
        "As administrator: `nvidia-smi -i 0 -c DEFAULT`.",
    ),
    "lost": (
        "The driver reports a fault: it is lost.",
        "Read the kernel log (`dmesg | grep -i xid`) and reset the GPU or restart the machine.",
    ),
    "partitioned, no instance": (
        "This GPU is partitioned (MIG, 0 instances); only an instance can be used.",
        "Create an instance, or switch MIG off.",
    ),
    "amd, not in the group": (
        "This user may not open /dev/kfd.",
        "Add the user to the group render and video and log in again.",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_the_sentences(case):
    """Each one was read by somebody."""
    assert (first(case).reason, first(case).remedy) == SENTENCES[case]


def test_a_row_carries_every_fact():
    """As `nvidia-smi` would show them."""
    row = diagnose_cuda(TWO)[1]
    assert (row.device, row.ordinal, row.name, row.uuid, row.pci_id) == (
        "cuda:1",
        1,
        SECOND.name,
        SECOND.uuid,
        "0000:5e:00.0",
    )
    assert (row.total_bytes, row.free_bytes, row.capability) == (80 * GIB, 79 * GIB, "9.0")
    assert (row.driver, row.runtime, row.mask) == ("580.65.06", "CUDA 13.0", None)


def test_a_mask_renumbers_and_says_what_it_hides():
    """Ordinals count what this process sees, not what the machine has."""
    seen, hidden = diagnose_cuda(MASKED)
    assert (seen.device, seen.uuid, seen.mask) == ("cuda:0", SECOND.uuid, "CUDA_VISIBLE_DEVICES=1")
    assert (hidden.device, hidden.uuid) == (None, H100.uuid)
    assert hidden.reason == "CUDA_VISIBLE_DEVICES=1 hides it from this process."
    assert hidden.remedy == f"Start the process with CUDA_VISIBLE_DEVICES={H100.uuid}."


def test_a_mig_instance_names_its_parent_and_its_own_memory():
    """The instance is the device; its GPU is not."""
    seen, parent, hidden = diagnose_cuda(CASES["partitioned, instance named"][0])
    assert (seen.device, seen.uuid, seen.parent, seen.total_bytes) == ("cuda:0", OTHER.uuid, H100.uuid, 10 * GIB)
    assert parent.remedy == "Name an instance in CUDA_VISIBLE_DEVICES."
    assert hidden.remedy == f"Start the process with CUDA_VISIBLE_DEVICES={SMALL.uuid}."


def test_an_unknown_order_is_not_guessed():
    """Numbered rows name no GPU, and named rows no number; a UUID cannot be resolved and says how it could."""
    numbered, _, named, _ = diagnose_cuda(MIXED)
    assert (numbered.device, numbered.name, numbered.uuid, numbered.capability) == ("cuda:0", "", None, None)
    assert (named.device, named.name) == (None, H100.name)
    assert numbered.notes == (
        (
            "ORDER_UNKNOWN: which of NVIDIA H100 80GB HBM3, Tesla P40 has this number is CUDA's choice. Set "
            "CUDA_DEVICE_ORDER=PCI_BUS_ID, or list UUIDs in CUDA_VISIBLE_DEVICES, before the process starts."
        ),
    )
    known = diagnose_cuda(set_variables(MIXED, CUDA_VISIBLE_DEVICES=P40.uuid))
    assert [(row.uuid, row.code) for row in known] == [(P40.uuid, "ARCH_UNSUPPORTED"), (H100.uuid, "MASKED")]


def test_the_first_good_gpu_is_taken():
    """A whole way: facts, rows, choice."""
    lost = replace(TWO, gpus=(GpuFacts(index=0, fault="it is lost"), SECOND))
    assert choose(DeviceConfig("cuda"), diagnose_cuda(lost)).device == "cuda:1"
    assert choose(DeviceConfig(f"cuda:{SECOND.uuid[:10]}"), diagnose_cuda(MASKED)).device == "cuda:0"
