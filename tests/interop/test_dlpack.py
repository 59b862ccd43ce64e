"""A DLPack capsule is read without being used up, and torch's own gaps are as the module says."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from bedstone.core.errors import InvalidConfigError
from bedstone.interop import SharingError, handle_to_tensor
from bedstone.interop.dlpack import CapsuleFacts, capsule_facts


@pytest.mark.parametrize("version", [(1, 0), None])
def test_a_capsule_says_what_the_tensor_is(version):
    tensor = torch.zeros(4, 6, dtype=torch.float64)[1:, 2:].t()
    capsule = tensor.__dlpack__(max_version=version)
    assert capsule_facts(capsule) == CapsuleFacts(
        pointer=tensor.data_ptr(), shape=(4, 3), strides=(1, 6), itemsize=8, read_only=False, copied=False
    )
    assert torch.from_dlpack(capsule).data_ptr() == tensor.data_ptr()


def test_read_only_memory_and_copies_are_marked():
    array = np.zeros(3)
    assert capsule_facts(array.__dlpack__(max_version=(1, 0), copy=True)).copied
    array.flags.writeable = False
    assert capsule_facts(array.__dlpack__(max_version=(1, 0))).read_only


def test_zero_dimensional_and_empty_memory_can_be_read():
    assert capsule_facts(torch.tensor(1.0).__dlpack__()).shape == ()
    empty = capsule_facts(torch.empty(0, 3).__dlpack__())
    assert (empty.shape, empty.filled, empty.misaligned) == ((0, 3), False, False)


@pytest.mark.slow
def test_torch_alone_still_dies_of_a_negative_stride():
    """The reason for this module; when this fails, torch has been mended and the module can shrink."""
    program = "import numpy, torch; torch.from_dlpack(numpy.arange(3.0)[::-1])"
    died = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert died.returncode != 0
    assert b"terminate called" in died.stderr


class Producer:
    """Somebody else's array, as far as DLPack sees it."""

    def __init__(self, capsule, device=(1, 0)):
        self.capsule, self.device = capsule, device

    def __dlpack__(self, **_options):
        return self.capsule

    def __dlpack_device__(self):
        return self.device


def test_what_is_no_unused_capsule_is_refused_instead_of_read():
    """The header of something else is an address to nowhere, which ends the process."""
    used = torch.ones(2).__dlpack__()
    torch.from_dlpack(used)
    for capsule, kind in ((None, "NoneType"), (used, "PyCapsule")):
        with pytest.raises(SharingError) as raised:
            handle_to_tensor(Producer(capsule))
        assert str(raised.value) == (
            f"__dlpack__ returned a {kind} that is no unused DLPack capsule. "
            "A capsule can be taken once; the object must make a new one at each call."
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a PyTorch without CUDA")
def test_memory_on_a_gpu_that_torch_cannot_use_is_refused():
    with pytest.raises(SharingError, match="it lies on GPU 1, which this PyTorch cannot use"):
        handle_to_tensor(Producer(None, (2, 1)))


def test_a_producer_without_a_device_is_refused():
    with pytest.raises(SharingError, match="The memory of a Producer cannot be shared through DLPack: "):
        handle_to_tensor(Producer(None, None))


def test_a_class_is_not_taken_for_its_instances():
    with pytest.raises(InvalidConfigError, match=r"`source` \(a type\) must be a TensorHandle"):
        handle_to_tensor(np.ndarray)
