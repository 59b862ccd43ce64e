"""Randomness by key instead of by history: what a thing is called decides its random numbers, not when it is asked.

A global generator gives the 1000th number to whoever comes 1000th, so one more worker, one evaluation more or a resume in
the middle shifts everything after it. Here each use has a key, `("order", epoch)` or `("noise", epoch, row)`, and its seed
is a hash of root seed and key. Then the order of an epoch can be made again at any time, and resuming is slicing it.

    seed = first 63 bits of BLAKE2b(canonical JSON of [root, *key])

The idea is that of stateless keys in JAX; torch 2.13 has them in `torch.func._random` and cannot draw from them on a CPU.

References:
    J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
    https://doi.org/10.1145/2063384.2063405. J.-P. Aumasson, S. Neves, Z. Wilcox-O'Hearn, C. Winnerlein, "BLAKE2:
    simpler, smaller, fast as MD5", 2013, https://www.blake2.net/blake2.pdf.
"""

from __future__ import annotations

import hashlib
import random
import sys
from dataclasses import dataclass

import torch

from bedstone.core.errors import InvalidConfigError
from bedstone.repro.fingerprint import canonical_json

_SEEDS = range(2**63)


@dataclass(frozen=True, slots=True)
class SeedTree:
    """Seeds by key below one root seed, the same on every machine, for any number of workers, in any order of asking.

    Args:
        root: The run's seed, 0 to 2^63 - 1.
        prefix: The key of this subtree; `child` sets it.

    Raises:
        InvalidConfigError: The seed is outside its range, or a part of a key is neither a string nor an integer.

    >>> seeds = SeedTree(42)
    >>> seeds.seed("order", 0)
    4738335298272480200
    >>> order = torch.randperm(100, generator=seeds.generator("order", 0))
    >>> torch.equal(order, torch.randperm(100, generator=seeds.generator("order", 0)))
    True
    >>> seeds.child("worker", 3).seed("noise") == seeds.seed("worker", 3, "noise")
    True
    """

    root: int
    prefix: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        _check_seed(self.root)
        _check_key(self.prefix)

    def seed(self, *key: str | int) -> int:
        """Return the seed of a key, 0 to 2^63 - 1.

        Args:
            key: Strings and integers; `1` and `"1"` are different, and so are `("a", "b")` and `("ab",)`.

        Raises:
            InvalidConfigError: A part is of another type.
        """
        _check_key(key)
        text = canonical_json([self.root, *self.prefix, *key])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1

    def generator(self, *key: str | int) -> torch.Generator:
        """Return a new torch generator on the CPU, at the start of the key's stream."""
        return torch.Generator().manual_seed(self.seed(*key))

    def random(self, *key: str | int) -> random.Random:
        """Return a new generator of Python's `random`, at the start of the key's stream."""
        return random.Random(self.seed(*key))  # noqa: S311 - for experiments, not for secrets

    def child(self, *key: str | int) -> SeedTree:
        """Return the subtree below a key: `child("a").seed("b")` equals `seed("a", "b")`."""
        return SeedTree(self.root, (*self.prefix, *key))


def seed_everything(seed: int) -> None:
    """Seed the global generators: Python, NumPy if it is imported, and torch on every device.

    Library code that draws without a generator of its own (dropout, weight initialisation) is fixed by this; code that
    can take a key should take one from a `SeedTree`. Python's hash order is not touched, since only `PYTHONHASHSEED`
    in the environment of a new process can fix it.

    Args:
        seed: 0 to 2^63 - 1. NumPy's global generator takes 32 bits: it gets the seed modulo 2^32.

    Raises:
        InvalidConfigError: The seed is outside its range.

    >>> seed_everything(42)
    >>> first = torch.rand(2)
    >>> seed_everything(42)
    >>> torch.equal(first, torch.rand(2))
    True
    """
    _check_seed(seed)
    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        import numpy as np

        np.random.seed(seed % 2**32)  # noqa: NPY002 - the legacy generator is the global one


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed not in _SEEDS:
        raise InvalidConfigError(
            f"`seed` (={seed!r}) must be an integer from 0 to 2^63 - 1.", argument="seed", value=seed
        )


def _check_key(key: tuple[str | int, ...]) -> None:
    for part in key:
        if isinstance(part, bool) or not isinstance(part, (str, int)):
            raise InvalidConfigError(
                f"`key` (={key!r}) must be made of strings and integers, and {part!r} is neither.",
                argument="key",
                value=key,
            )
