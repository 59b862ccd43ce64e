"""`CUDA_VISIBLE_DEVICES` read like the driver reads it; PyTorch's reader is the independent oracle where it goes that far."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.device.cuda.facts import GpuFacts, MigFacts
from bedstone.core.device.cuda.visible import visible_targets

UUIDS = ("GPU-8932f937-d72c", "GPU-8932aaaa-0000", "GPU-0c1d2e3f-4444", "GPU-ffff0000-1111")
GPUS = tuple(GpuFacts(index=index, uuid=uuid) for index, uuid in enumerate(UUIDS))
MIG = (
    MigFacts(uuid="MIG-aaaa", gpu_instance=1, compute_instance=0),
    MigFacts(uuid="MIG-bbbb", gpu_instance=2, compute_instance=0),
)
SPLIT = replace(GPUS[0], mig_enabled=True, mig=MIG)


def seen(gpus, *masks):
    found = visible_targets(gpus, masks)
    return [target.mig.uuid if target.mig else target.gpu.index for target in found.targets], found.stopped_at


# Spellings of one GPU stand together: what comes twice is tested below, where the oracle's order of checks is its own.
SPELLINGS = (("0",), ("1", " 1", "1gpu2"), ("2", "+2"), ("3",), ("4",), ("99",), ("-1",), ("x",), ("",))
NAMES = ((UUIDS[0],), (UUIDS[1], "GPU-8932a"), (UUIDS[2], "GPU-0c"), (UUIDS[3],), ("GPU-8932",), ("GPU-zz",))


@given(st.permutations((*SPELLINGS, *NAMES)).flatmap(lambda order: st.tuples(*map(st.sampled_from, order))), st.data())
def test_agrees_with_pytorch(entries, data):
    """Order, tails of numbers, unknown and ambiguous names, mixed kinds, and where the list ends."""
    mask = ",".join(entries[: data.draw(st.integers(0, 8))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", mask)
        parsed = torch.cuda._parse_visible_devices()
    if parsed and isinstance(parsed[0], str):
        expected = torch.cuda._transform_uuid_to_ordinals(parsed, list(UUIDS))
    else:  # PyTorch cuts the list at the first number that is too large when it counts devices
        short = next((place for place, number in enumerate(parsed) if number >= len(UUIDS)), len(parsed))
        expected = parsed[:short]
    assert seen(GPUS, mask)[0] == expected


@pytest.mark.parametrize(
    ("mask", "expected", "stopped_at"),
    [
        ("2,0", [2, 0], None),
        ("0,2,-1,1", [0, 2], "-1"),
        ("7,0", [], "7"),
        ("1,1", [], "1"),
        ("", [], None),
        ("-1", [], "-1"),
        ("NoDevFiles", [], "NoDevFiles"),
        ("GPU-0c,GPU-ff", [2, 3], None),
        ("GPU-8932", [], "GPU-8932"),
        ("GPU-0c,1", [2], "1"),
        ("gpu-0c", [], "gpu-0c"),
    ],
)
def test_the_rules_of_the_driver(mask, expected, stopped_at):
    """From NVIDIA's programming guide; the entry that ends the list is named."""
    assert seen(GPUS, mask) == (expected, stopped_at)


def test_no_mask_shows_every_whole_gpu():
    """A partitioned GPU among whole ones is not seen."""
    assert seen(GPUS) == ([0, 1, 2, 3], None)
    assert seen((SPLIT, *GPUS[1:])) == ([1, 2, 3], None)


def test_a_process_sees_one_mig_instance():
    """The first, by default; the one that is named, otherwise; never two."""
    assert seen((SPLIT,)) == (["MIG-aaaa"], None)
    assert seen((SPLIT,), "MIG-bbbb") == (["MIG-bbbb"], None)
    assert seen((SPLIT,), "MIG-bbbb,MIG-aaaa") == (["MIG-bbbb"], None)
    assert seen((SPLIT, GPUS[1]), "0") == (["MIG-aaaa"], None)
    assert seen((SPLIT, GPUS[1]), "MIG-cccc") == ([], "MIG-cccc")


def test_a_mig_instance_has_an_older_name_too():
    """GPU, GPU instance and compute instance."""
    assert seen((SPLIT,), "MIG-GPU-8932f937-d72c/2/0") == (["MIG-bbbb"], None)
    assert seen((SPLIT,), "MIG-GPU-8932f937-d72c/3/0") == ([], "MIG-GPU-8932f937-d72c/3/0")


def test_masks_apply_one_after_the_other():
    """ROCm: `ROCR_VISIBLE_DEVICES` first, then `HIP_VISIBLE_DEVICES` counts within what is left."""
    assert seen(GPUS, "3,1", "1") == ([1], None)
    assert seen(GPUS, "3,1", "2") == ([], "2")


@given(st.lists(st.integers(0, 3), unique=True, min_size=1))
def test_a_permutation_is_kept(order):
    """Valid distinct numbers come out in the order in which they were given."""
    assert seen(GPUS, ",".join(map(str, order))) == (order, None)
