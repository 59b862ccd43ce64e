"""The decision: explicit means that device or an error with reason, count and mask; `auto` means the best, else a cause."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.device import DeviceConfig, DeviceRow, choose
from bedstone.core.errors import DeviceNotAvailableError

GPU = DeviceRow(
    backend="cuda",
    verdict="usable",
    reason="Nothing speaks against it.",
    device="cuda:0",
    ordinal=0,
    name="H100",
    uuid="GPU-89aa",
    free_bytes=1000,
    mask="CUDA_VISIBLE_DEVICES=1,0",
)
SECOND = replace(GPU, device="cuda:1", ordinal=1, uuid="GPU-89bb", free_bytes=3000)
BUSY = replace(GPU, verdict="unusable", code="EXCLUSIVE_PROCESS_BUSY", reason="Another has it.", remedy="Wait.")
HIDDEN = replace(
    BUSY, device=None, ordinal=None, uuid="MIG-cc", code="MASKED", reason="It is hidden.", remedy="Show it."
)
NOTHING = DeviceRow(backend="cuda", verdict="absent", code="NO_DEVICE", reason="There is no GPU.")
OTHER_BUILD = DeviceRow(backend="xpu", verdict="absent", code="TORCH_CPU_BUILD", reason="No XPU in this build.")


def refused(config, rows):
    with pytest.raises(DeviceNotAvailableError) as caught:
        choose(config, rows)
    return caught.value


def test_auto_takes_the_first_usable_candidate():
    """In the order of the rows."""
    choice = choose(DeviceConfig(), [BUSY, SECOND, GPU])
    assert (choice.device, choice.cause) == ("cuda:1", None)
    assert choice.reason == "cuda:1 (H100) can be used. Nothing speaks against it."


def test_auto_falls_back_with_the_most_telling_cause():
    """What is there and fails, before what this build lacks, before what is not there."""
    assert choose(DeviceConfig(), [NOTHING, OTHER_BUILD, BUSY]).cause == BUSY
    assert choose(DeviceConfig(), [NOTHING, OTHER_BUILD]).cause == OTHER_BUILD
    choice = choose(DeviceConfig(), [NOTHING])
    assert (choice.device, choice.cause) == ("cpu", NOTHING)
    assert choice.reason == "No accelerator can be used. There is no GPU."


def test_the_cpu_needs_no_cause():
    """It was chosen."""
    choice = choose(DeviceConfig(force_cpu=True), [])
    assert (choice.device, choice.cause, choice.reason) == ("cpu", None, "The CPU was chosen (from argument).")


def test_a_backend_without_a_number_is_its_first_usable_device():
    """`cuda` need not be `cuda:0` when that one is taken."""
    assert choose(DeviceConfig("cuda"), [BUSY, SECOND]).device == "cuda:1"


def test_a_number_means_that_one_and_no_other():
    """An explicit wish never slides on to a neighbour."""
    assert choose(DeviceConfig(cuda_device=1), [GPU, SECOND]).device == "cuda:1"
    error = refused(DeviceConfig(cuda_device=0), [BUSY, SECOND])
    assert str(error) == (
        "The device 'cuda:0' (from argument) is not available: Another has it. "
        "The environment has CUDA_VISIBLE_DEVICES=1,0. Wait."
    )
    assert (error.device, error.reason, error.count, error.mask, error.source) == (
        "cuda:0",
        "EXCLUSIVE_PROCESS_BUSY",
        2,
        "CUDA_VISIBLE_DEVICES=1,0",
        "argument",
    )


def test_a_number_too_large_says_how_many_there_are():
    """The original swallowed the cause and gave the CPU."""
    config = DeviceConfig.from_env({"BEDSTONE_CUDA_DEVICE": "99"})
    error = refused(config, [GPU, SECOND, HIDDEN])
    assert str(error) == (
        "The device 'cuda:99' (from BEDSTONE_CUDA_DEVICE) is not available: This process sees 2 cuda device(s): cuda:0, "
        "cuda:1. The environment has CUDA_VISIBLE_DEVICES=1,0. Use a number below 2."
    )
    assert (error.reason, error.count) == ("NO_SUCH_ORDINAL", 2)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:GPU-89", "cuda:MIG-12"])
def test_what_keeps_every_device_away_is_the_answer_to_every_wish(device):
    """Not "no such number", which would send the user to the wrong place."""
    error = refused(DeviceConfig(device), [NOTHING])
    assert (error.reason, error.count) == ("NO_DEVICE", 0)
    assert str(error) == f"The device {device!r} (from argument) is not available: There is no GPU."


def test_a_uuid_may_be_abbreviated_while_it_is_unique():
    """Any case; two matches are none."""
    assert choose(DeviceConfig("cuda:GPU-89B"), [GPU, SECOND]).device == "cuda:1"
    error = refused(DeviceConfig("cuda:GPU-89"), [GPU, SECOND])
    assert (error.reason, error.message) == (
        "NO_SUCH_UUID",
        (
            "The device 'cuda:GPU-89' (from argument) is not available: Several UUIDs begin with 'GPU-89'; known: GPU-89aa, "
            "GPU-89bb. The environment has CUDA_VISIBLE_DEVICES=1,0."
        ),
    )
    assert refused(DeviceConfig("cuda:GPU-00"), [GPU]).reason == "NO_SUCH_UUID"
    assert refused(DeviceConfig("cuda:MIG-00"), [GPU, HIDDEN]).reason == "MIG_UUID_UNKNOWN"


def test_a_hidden_device_is_known_and_still_refused():
    """The reason is the mask, not the UUID."""
    error = refused(DeviceConfig("cuda:MIG-cc"), [GPU, HIDDEN])
    assert (error.reason, error.remedy) == ("MASKED", "Show it.")


def test_a_minimum_of_free_memory_rules_candidates_out():
    """For `auto` the next one, for a number an error; unknown memory is not held against a device."""
    assert choose(DeviceConfig(min_free_bytes=2000), [GPU, SECOND]).device == "cuda:1"
    assert choose(DeviceConfig(min_free_bytes=2000), [replace(GPU, free_bytes=None)]).device == "cuda:0"
    error = refused(DeviceConfig(cuda_device=0, min_free_bytes=2000), [GPU, SECOND])
    assert error.reason == "OUT_OF_FREE_MEMORY"
    assert error.message == (
        "The device 'cuda:0' (from argument) is not available: 1,000 bytes are free; `min_free_bytes` asks for 2,000. "
        "The environment has CUDA_VISIBLE_DEVICES=1,0."
    )


@given(st.lists(st.sampled_from([GPU, SECOND, BUSY, HIDDEN, NOTHING, OTHER_BUILD]), min_size=1))
def test_auto_never_fails_and_takes_a_device_exactly_when_one_is_usable(rows):
    """Whatever the machine."""
    choice = choose(DeviceConfig(), rows)
    assert (choice.cause is None) == any(row.usable for row in rows) == (choice.device != "cpu")
