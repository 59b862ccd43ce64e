"""How large the rank of a low-rank adapter may be.

`B A` with `A [r, columns]` and `B [rows, r]` reaches every matrix `[rows, columns]` once r is the smaller side. A larger rank
costs memory and time and adds nothing; it is a slip, and is refused before anything is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bedstone.adapters.errors import RankTooLargeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def check_rank(rank: int, layers: Mapping[str, torch.nn.Module], *, argument: str = "rank") -> None:
    """Refuse a rank that a target layer cannot use.

    Args:
        rank: At least 1.
        layers: The target layers by name; each has a `weight` of two dimensions.
        argument: What the user calls the rank, for the message.

    Raises:
        RankTooLargeError: It is larger than the smaller side of a layer, which is named.

    >>> import torch
    >>> check_rank(8, {"fc1": torch.nn.Linear(16, 8)})
    """
    for name, layer in layers.items():
        weight: Any = layer.weight
        rows, columns = weight.shape
        if rank > min(rows, columns):
            raise RankTooLargeError(rank=rank, layer=name, shape=(rows, columns), argument=argument)
