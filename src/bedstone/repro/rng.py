"""The state of every global random generator as a tree, and back.

A run that goes on must draw the very numbers that the uninterrupted run would have drawn; dropout does so from torch's
global generator of its device. Restore these states after the data iterator exists: making a `DataLoader` iterator
draws from torch's generator (unless the loader was given one of its own), which would shift every dropout mask after it.
"""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import DeviceNotAvailableError, InvalidConfigError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

_DEVICE_KINDS = ("cuda", "xpu", "mps")
_KNOWN = frozenset({"python", "numpy", "torch", *_DEVICE_KINDS})


def capture_rng() -> dict[str, Any]:
    """Return the states of Python's, NumPy's (if imported) and torch's global generators, on all devices in use.

    A CUDA or XPU device counts when its backend was initialised in this process, since nothing was drawn before that.

    Returns:
        A tree for a checkpoint: `python`, `torch`, and where they exist `numpy`, `cuda`, `xpu` (a list, one state a
        device) and `mps` (a list of one).

    >>> state = capture_rng()
    >>> first = torch.rand(3)
    >>> restore_rng(state)
    >>> torch.equal(first, torch.rand(3))
    True
    """
    tree: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        import numpy as np

        state = np.random.get_state(legacy=False)  # noqa: NPY002 - the legacy generator is the global one
        tree["numpy"] = _map_leaves(state, lambda x: torch.from_numpy(x) if isinstance(x, np.ndarray) else x)
    for kind in _DEVICE_KINDS:
        if _in_use(kind):
            module = getattr(torch, kind)
            tree[kind] = [module.get_rng_state()] if kind == "mps" else list(module.get_rng_state_all())
    return tree


def restore_rng(tree: dict[str, Any]) -> None:
    """Put every generator in a tree back to its state; a generator that is not in it is left alone.

    Args:
        tree: What `capture_rng` returned, also from a checkpoint.

    Raises:
        InvalidConfigError: The tree was not made by `capture_rng`.
        DeviceNotAvailableError: It holds the state of a device that this machine lacks; nothing was restored.
        UnsupportedError: It holds NumPy's state and NumPy is not installed; nothing was restored.
    """
    if not isinstance(tree, dict) or "python" not in tree or "torch" not in tree or not _KNOWN.issuperset(tree):
        found = sorted(map(str, tree)) if isinstance(tree, dict) else type(tree).__name__
        raise InvalidConfigError(
            f"`tree` (={found}) must be what `capture_rng` returned.", argument="tree", value=found
        )
    numpy_random = _numpy_random() if "numpy" in tree else None
    kinds = [kind for kind in _DEVICE_KINDS if kind in tree]
    for kind in kinds:
        _check_devices(kind, len(tree[kind]))
    random.setstate(tree["python"])
    torch.set_rng_state(tree["torch"])
    if numpy_random is not None:
        state = _map_leaves(tree["numpy"], lambda x: x.numpy() if isinstance(x, torch.Tensor) else x)
        numpy_random.set_state(state)
    for kind in kinds:
        _restore_devices(kind, tree[kind])


def _map_leaves(tree: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(tree, dict):
        return {key: _map_leaves(item, change) for key, item in tree.items()}
    return change(tree)


def _in_use(kind: str) -> bool:
    if kind == "mps":
        return torch.backends.mps.is_available()
    return getattr(torch, kind).is_initialized()


def _numpy_random() -> Any:
    try:
        import numpy as np
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            "The saved random state holds NumPy's generator, and NumPy is not installed.",
            feature="numpy",
            remedy="Install it with `pip install numpy`.",
        ) from error
    return np.random


def _check_devices(kind: str, saved: int) -> None:
    present = int(torch.backends.mps.is_available()) if kind == "mps" else getattr(torch, kind).device_count()
    if present < saved:
        raise DeviceNotAvailableError(
            f"The saved random state holds {saved} {kind} generator(s), and this process sees {present} such device(s).",
            device=f"{kind}:{present}",
            reason="RNG_DEVICE_MISSING",
            remedy="Resume on a machine like the one that saved it, or remove that entry to go on with other numbers.",
        )


def _restore_devices(kind: str, states: list[torch.Tensor]) -> None:
    module = getattr(torch, kind)
    if kind == "mps":
        module.set_rng_state(states[0])
        return
    for ordinal, state in enumerate(states):
        module.set_rng_state(state, ordinal)
