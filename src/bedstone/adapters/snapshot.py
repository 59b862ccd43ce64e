"""What modules hold, kept for the case that a change to them fails half-way.

A shallow copy of every container in a module: parameters, buffers, children, attributes, lists and dictionaries. It costs no
tensor. Whoever changes the module meanwhile replaces tensors, and does not write into them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


class Snapshot:
    """The state of a module and of all modules in it.

    Args:
        module: Is not changed.

    >>> import torch
    >>> layer = torch.nn.Linear(2, 2)
    >>> before = layer.weight
    >>> snapshot = Snapshot(layer)
    >>> layer.weight = torch.nn.Parameter(torch.zeros(2, 2))
    >>> snapshot.restore()
    >>> layer.weight is before
    True
    """

    def __init__(self, module: nn.Module) -> None:
        self._kept: list[tuple[Any, Any]] = []
        for part in module.modules():
            held = [value for value in part.__dict__.values() if isinstance(value, (dict, list))]
            self._kept += [(container, container.copy()) for container in (part.__dict__, *held)]

    def restore(self) -> None:
        """Put everything back into the same containers, so that those that modules share stay shared."""
        for container, content in self._kept:
            container.clear()
            (container.update if isinstance(container, dict) else container.extend)(content)
