"""A key decides its numbers: not the order of asking, not the machine, not the number of workers."""

# ruff: noqa: NPY002 - the global generator is the subject

import random
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.errors import InvalidConfigError
from bedstone.repro.seeds import SeedTree, seed_everything

parts = st.text() | st.integers()
keys = st.lists(parts, max_size=4).map(tuple)
roots = st.integers(0, 2**63 - 1)


def test_seeds_are_the_same_in_every_version():
    seeds = SeedTree(42)
    assert seeds.seed() == 7014992390951794165
    assert seeds.seed("order", 0) == 4738335298272480200
    assert seeds.seed("noise", 3, 17) == 5000875456618301955
    assert seeds.seed("ключ", -1) == 2697827597854426320


@given(roots, keys)
def test_a_seed_is_63_bits_and_the_same_every_time(root, key):
    seed = SeedTree(root).seed(*key)
    assert 0 <= seed < 2**63
    assert SeedTree(root).seed(*key) == seed


@given(roots, keys, keys)
def test_different_keys_have_different_seeds(root, first, second):
    same_types = list(map(type, first)) == list(map(type, second))
    same = first == second and same_types
    assert (SeedTree(root).seed(*first) == SeedTree(root).seed(*second)) == same


@given(keys)
def test_different_roots_have_different_seeds(key):
    assert len({SeedTree(root).seed(*key) for root in range(50)}) == 50


@given(roots, keys, keys)
def test_a_child_continues_its_key(root, first, second):
    assert SeedTree(root).child(*first).seed(*second) == SeedTree(root).seed(*first, *second)


def test_neither_order_of_asking_nor_global_state_matters():
    seeds = SeedTree(7)
    first = [torch.rand(3, generator=seeds.generator("noise", row)) for row in range(4)]
    torch.manual_seed(99)
    random.seed(99)
    second = [torch.rand(3, generator=seeds.generator("noise", row)) for row in reversed(range(4))]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(second), strict=True))


def test_asking_leaves_the_global_generators_alone():
    torch.manual_seed(1)
    random.seed(1)
    expected = torch.rand(2), random.random()
    torch.manual_seed(1)
    random.seed(1)
    SeedTree(7).generator("a").initial_seed()
    SeedTree(7).random("a").random()
    assert torch.equal(torch.rand(2), expected[0])
    assert random.random() == expected[1]


def test_generators_start_at_the_seed_of_their_key():
    seeds = SeedTree(7)
    assert seeds.generator("a", 1).initial_seed() == seeds.seed("a", 1)
    assert seeds.random("a", 1).random() == random.Random(seeds.seed("a", 1)).random()


def test_two_streams_are_not_correlated():
    rows = torch.stack([torch.randn(20_000, generator=SeedTree(7).generator("noise", row)) for row in range(8)])
    # Off the diagonal a correlation of independent rows has standard deviation 1/sqrt(20000) = 0.007; 5 sigma = 0.035.
    assert (torch.corrcoef(rows) - torch.eye(8)).abs().max() < 0.035


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "42", None])
def test_a_seed_outside_its_range_is_refused(seed):
    message = f"`seed` (={seed!r}) must be an integer from 0 to 2^63 - 1."
    for make in (SeedTree, seed_everything):
        with pytest.raises(InvalidConfigError) as caught:
            make(seed)
        assert str(caught.value) == message


@pytest.mark.parametrize("part", [1.5, True, None, b"a", ("a",)])
def test_a_key_of_another_type_is_refused(part):
    message = f"`key` (={('a', part)!r}) must be made of strings and integers, and {part!r} is neither."
    for ask in (SeedTree(1).seed, SeedTree(1).generator, SeedTree(1).random, SeedTree(1).child):
        with pytest.raises(InvalidConfigError) as caught:
            ask("a", part)
        assert str(caught.value) == message


@pytest.mark.parametrize("seed", [0, 42, 2**63 - 1])
def test_seed_everything_fixes_every_global_generator(seed):
    assert "numpy" in sys.modules

    def draw():
        seed_everything(seed)
        return random.random(), np.random.random(), torch.rand(2).tolist()

    assert draw() == draw()


def test_seed_everything_does_without_numpy(run_python):
    script = "import sys; sys.modules['numpy'] = None\nimport bedstone.repro as r\ndel sys.modules['numpy']\n"
    script += "r.seed_everything(1)\nprint('numpy' in sys.modules)"
    assert run_python(script).strip() == "False"
