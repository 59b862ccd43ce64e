"""What can go wrong with adapters, beside the errors of `core`.

CoreError
├── UnknownNameError          LookupError
│   └── AdapterNotFoundError                  no adapter of this name; `name`, `known`
├── InvalidConfigError        ValueError
│   └── RankTooLargeError                     a rank beyond a layer; `rank`, `layer`, `shape`
└── MergeError                RuntimeError    a merge that cannot be; `layer`, `adapter`; the model is as it was
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.core.errors import CoreError, InvalidConfigError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable


class AdapterNotFoundError(UnknownNameError):
    """No adapter of this name is in the model.

    >>> raise AdapterNotFoundError("frnech", ["default", "french"])
    Traceback (most recent call last):
    bedstone.adapters.errors.AdapterNotFoundError: No adapter is called 'frnech'. Did you mean 'french'? Known: default, \
french. Load it first with `model.load_adapter(folder, adapter_name=...)`.
    """

    code = "adapter_not_found"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        remedy = "Load it first with `model.load_adapter(folder, adapter_name=...)`."
        super().__init__("adapter", name, known, remedy=remedy)


class RankTooLargeError(InvalidConfigError):
    """A rank that is larger than the smaller side of a target layer, where more ranks can add nothing.

    Attributes:
        rank: As asked for.
        layer: The first layer that it does not fit.
        shape: Of that layer's weight.

    >>> raise RankTooLargeError(rank=128, layer="fc1", shape=(64, 32), argument="r")
    Traceback (most recent call last):
    bedstone.adapters.errors.RankTooLargeError: `r` (=128) must not exceed the smaller side of fc1, min(64, 32) = 32. \
Set `r` to at most 32, or target other layers.
    """

    code = "rank_too_large"
    rank: int
    layer: str
    shape: tuple[int, int]

    def __init__(self, *, rank: int, layer: str, shape: tuple[int, int], argument: str = "rank") -> None:
        rows, columns = shape
        largest = min(shape)
        super().__init__(
            f"`{argument}` (={rank}) must not exceed the smaller side of {layer}, min({rows}, {columns}) = {largest}.",
            argument=argument,
            value=rank,
            remedy=f"Set `{argument}` to at most {largest}, or target other layers.",
            rank=rank,
            layer=layer,
            shape=shape,
        )


class MergeError(CoreError, RuntimeError):
    """An adapter that cannot be merged; every weight is as it was before.

    Attributes:
        layer: The first layer that refused.
        adapter: The adapter, or several, separated by commas.

    >>> raise MergeError("The merged weight is not finite.", layer="fc1", adapter="default")
    Traceback (most recent call last):
    bedstone.adapters.errors.MergeError: The adapter 'default' cannot be merged into fc1: The merged weight is not finite. \
Nothing was changed.
    """

    code = "merge"
    layer: str
    adapter: str

    def __init__(self, reason: str, *, layer: str, adapter: str, remedy: str = "") -> None:
        message = f"The adapter {adapter!r} cannot be merged into {layer}: {reason} Nothing was changed."
        super().__init__(message, remedy=remedy, reason=reason, layer=layer, adapter=adapter)
