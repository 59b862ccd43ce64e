"""The bytes that a model really takes.

`nelement() * element_size()`, which torch, transformers and others add up, is the size of the dense weight for a packed one, and
leaves out the scales of bitsandbytes. Here each storage is counted once, and a wrapper tensor is what its inner tensors are.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


def model_bytes(model: nn.Module | torch.Tensor) -> int:
    """Return the bytes of all parameters and buffers, or of one tensor; shared memory counts once.

    Knows packed weights of bedstone, torchao (any wrapper tensor) and bitsandbytes (`quant_state`).

    Args:
        model: A module or a tensor; may be on the meta device, then what it would take.

    >>> import bedstone as bs
    >>> layer = torch.nn.Linear(64, 64, bias=False)
    >>> before = model_bytes(layer)
    >>> report = bs.quantize(layer, "nf4")
    >>> before, model_bytes(layer), layer.weight.nbytes  # torch's own count is that of the dense weight
    (16384, 2304, 16384)
    """
    tensors = [model] if isinstance(model, torch.Tensor) else itertools.chain(model.parameters(), model.buffers())
    storages: dict[object, int] = {}
    for tensor in tensors:
        for plain in _plain(tensor):
            storage = plain.untyped_storage()
            key = (plain.device, storage.data_ptr()) if storage.data_ptr() else id(plain)
            storages[key] = storage.nbytes()
    return sum(storages.values())


def _plain(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the plain tensors that a tensor consists of."""
    if is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _plain(getattr(tensor, name))
        return
    yield tensor
    state: Any = getattr(tensor, "quant_state", None)  # bitsandbytes
    while state is not None:
        yield from (value for value in vars(state).values() if isinstance(value, torch.Tensor))
        state = getattr(state, "state2", None)
