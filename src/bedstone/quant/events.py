"""What happens to the weights of a model, as events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from bedstone.core.events import Event
from bedstone.core.memory import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelQuantized(Event):
    """The linear layers of a model are packed.

    Attributes:
        scheme: The name of the scheme, or the names where a file holds several.
        options: The scheme with its options as `Scheme.to_dict` gives it; empty where a file holds several.
        layers: How many linear layers are packed.
        dense_bytes: What their weights would take dense.
        packed_bytes: What they take, scales included.
        left_dense: The linear layers that are not packed, each with its reason.

    >>> print(ModelQuantized(
    ...     scheme="nf4", options={}, layers=2, dense_bytes=8192, packed_bytes=1152, left_dense={"lm_head": "skipped"}
    ... ).message())
    Packed 2 linear layers as nf4: 1.13 KiB instead of 8 KiB. Dense stay lm_head (skipped).
    """

    name: ClassVar[str] = "model_quantized"
    scheme: str
    options: dict[str, Any]
    layers: int
    dense_bytes: int
    packed_bytes: int
    left_dense: dict[str, str]

    def message(self) -> str:
        """Return the event as one sentence for people."""
        reasons: dict[str, list[str]] = {}
        for layer, reason in self.left_dense.items():
            reasons.setdefault(reason, []).append(layer)
        told = "; ".join(f"{_shown(names)} ({reason})" for reason, names in reasons.items())
        size = f"{format_bytes(self.packed_bytes)} instead of {format_bytes(self.dense_bytes)}"
        return f"Packed {self.layers} linear layers as {self.scheme}: {size}.{f' Dense stay {told}.' if told else ''}"


def _shown(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
