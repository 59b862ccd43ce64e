"""A DLPack capsule is read without being used up, and torch's own gaps are as the module says."""

import subprocess
import sys

import numpy as np
import pytest
import torch

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
