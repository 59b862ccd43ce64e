"""After `restore_rng` every global generator draws what it would have drawn."""

# ruff: noqa: NPY002 - the global generator is the subject

import random

import numpy as np
import pytest
import torch

from bedstone.core.errors import DeviceNotAvailableError, InvalidConfigError, UnsupportedError
from bedstone.repro.checkpoint import CheckpointStore
from bedstone.repro.rng import capture_rng, restore_rng


def draw():
    """A few numbers of each generator; the normal draws leave a cached second value in Python's and NumPy's."""
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.random(),
        np.random.standard_normal(),
        torch.rand(3).tolist(),
        torch.nn.functional.dropout(torch.ones(40), 0.5).tolist(),
    )


def test_restored_generators_draw_the_same_numbers():
    draw()  # an odd number of normal draws: the cached one is part of the state
    state = capture_rng()
    first = draw()
    assert draw() != first
    restore_rng(state)
    assert draw() == first


def test_the_state_survives_a_checkpoint(tmp_path):
    draw()
    store = CheckpointStore(tmp_path)
    store.save(1, {"rng": capture_rng()})
    first = draw()
    found = store.latest()
    assert found is not None
    restore_rng(found.state["rng"])
    assert draw() == first


def test_a_captured_state_does_not_move_with_the_generators():
    state = capture_rng()
    before = state["torch"].clone(), state["numpy"]["state"]["key"].clone()
    for _ in range(300):
        draw()
    np.random.random(2000)
    assert torch.equal(state["torch"], before[0])
    assert torch.equal(state["numpy"]["state"]["key"], before[1])


def test_a_generator_that_is_not_in_the_tree_is_left_alone():
    state = capture_rng()
    del state["numpy"]
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    restore_rng(state)
    assert np.random.random() == expected


def test_numpy_is_captured_only_when_it_is_there(run_python):
    script = "import sys; sys.modules['numpy'] = None\nimport bedstone.repro as r\ndel sys.modules['numpy']\n"
    script += "print(sorted(r.capture_rng()))"
    assert run_python(script).strip() == "['python', 'torch']"


def test_numpys_state_without_numpy_is_refused_before_anything_changes(run_python, tmp_path):
    CheckpointStore(tmp_path).save(1, {"rng": capture_rng()})
    script = """
import sys
sys.modules['numpy'] = None
import random, torch, bedstone.repro as r
tree = r.CheckpointStore(sys.argv[1]).latest().state['rng']
before = random.getstate()
try:
    r.restore_rng(tree)
except r.rng.UnsupportedError as error:
    print(error)
assert random.getstate() == before
"""
    assert run_python(script, tmp_path).strip() == (
        "The saved random state holds NumPy's generator, and NumPy is not installed. Install it with `pip install numpy`."
    )
    assert issubclass(UnsupportedError, NotImplementedError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device that the test needs absent")
def test_a_state_of_a_missing_device_is_refused_before_anything_changes():
    state = capture_rng()
    state["cuda"] = [state["torch"]]
    torch.manual_seed(5)
    random.seed(5)
    before = torch.get_rng_state(), random.getstate()
    with pytest.raises(DeviceNotAvailableError) as caught:
        restore_rng(state)
    assert str(caught.value) == (
        "The saved random state holds 1 cuda generator(s), and this process sees 0 such device(s). "
        "Resume on a machine like the one that saved it, or remove that entry to go on with other numbers."
    )
    assert caught.value.device == "cuda:0"
    assert caught.value.reason == "RNG_DEVICE_MISSING"
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_generators_are_restored_too():
    torch.rand(1, device="cuda")
    state = capture_rng()
    first = torch.rand(5, device="cuda")
    restore_rng(state)
    assert torch.equal(torch.rand(5, device="cuda"), first)


@pytest.mark.parametrize(
    ("tree", "shown"),
    [({}, "[]"), ({"python": 1}, "['python']"), ({"python": 1, "torch": 2, "jax": 3}, "['jax', 'python', 'torch']")],
)
def test_another_tree_is_refused(tree, shown):
    with pytest.raises(InvalidConfigError) as caught:
        restore_rng(tree)
    assert str(caught.value) == f"`tree` (={shown}) must be what `capture_rng` returned."


def test_no_tree_at_all_is_refused():
    with pytest.raises(InvalidConfigError) as caught:
        restore_rng(None)  # pyright: ignore[reportArgumentType]
    assert str(caught.value) == "`tree` (=NoneType) must be what `capture_rng` returned."
