"""What came of packing a model: sizes, the error of each weight, and the distance from the dense model on each text."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bedstone.core.memory import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bedstone.quant import PackedLayer, QuantizationReport, Scheme
    from bedstone.quant.compare import Divergence
    from bedstone.train.quantize.gguf_types import GgufTypes


@dataclass(frozen=True, slots=True)
class ComparedText:
    """One text and how both models read it.

    Attributes:
        name: The file's name, or what the text is.
        divergence: Token by token.
    """

    name: str
    divergence: Divergence

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them; one that is not finite is `None`."""
        found = self.divergence
        figures = {
            "kl_nats": found.mean_kl,
            "kl_nats_standard_error": found.kl_error,
            "kl_nats_median": found.kl_quantile(0.5),
            "top1_agreement": found.agreement,
            "perplexity_dense": found.reference_perplexity,
            "perplexity_packed": found.perplexity,
        }
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        return {"text": self.name, "tokens": found.tokens, **finite}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What `quantize_model` did; all of it also lies in the folder.

    Attributes:
        folder: The transformers folder that was written.
        model: What was asked for.
        layers: The packed layers with their sizes and errors, and those that stay dense with the reason.
        dtype: Of the model's files, in which dense weights are counted and saved, for example `torch.float32`.
        dense_bytes: All parameters and buffers before.
        packed_bytes: The same now.
        texts: The comparisons, in the order of the texts.
        earlier: The number formats of the GGUF file that the model came from, if it did.
        circumstances: Versions, processor and threads.
        seconds: From the first check to the finished folder.
    """

    folder: Path
    model: str
    layers: QuantizationReport
    dtype: str
    dense_bytes: int
    packed_bytes: int
    texts: tuple[ComparedText, ...]
    earlier: GgufTypes | None
    circumstances: Mapping[str, str]
    seconds: float

    @property
    def scheme(self) -> Scheme:
        """The scheme of the packed weights."""
        return self.layers.scheme

    @property
    def report(self) -> Path:
        """The page that shows everything."""
        return self.folder / "report.html"

    @property
    def worst(self) -> PackedLayer:
        """The layer whose weight lost most."""
        return max(self.layers.packed, key=error_of)

    @property
    def median_error(self) -> float:
        """Relative error of the middle one of the packed weights."""
        return statistics.median(map(error_of, self.layers.packed))

    @property
    def bits_per_weight(self) -> float:
        """Of the packed weights, scales included."""
        count = sum(math.prod(layer.shape) for layer in self.layers.packed)
        return 8 * self.layers.packed_bytes / count if count else 0.0

    @property
    def second_quantization(self) -> str:
        """What to know when the weights had been quantized before, full sentences; empty when they had not."""
        if self.earlier is None or not self.earlier.quantized:
            return ""
        formats = " and ".join(f"{count} as {name}" for name, count in self.earlier.quantized.items())
        return (
            f"The weights were quantized before: of the {sum(self.earlier.tensors.values())} tensors in the GGUF file, "
            f"{formats}. This is a second quantization, and every figure compares with the unpacked file, "
            "not with the model that the file was made from. A scheme whose grid resembles the file's looks better than it is. "
            f"The file itself has {format_bytes(self.earlier.bytes)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {
            "model": self.model,
            "scheme": self.scheme.to_dict(),
            "dtype": self.dtype.removeprefix("torch."),
            "bytes": {"dense": self.dense_bytes, "packed": self.packed_bytes},
            "gguf": None
            if self.earlier is None
            else {"bytes": self.earlier.bytes, "tensors": dict(self.earlier.tensors)},
            "texts": [text.to_dict() for text in self.texts],
            "layers": [
                {"name": x.name, "shape": x.shape, "dense": x.dense_bytes, "packed": x.packed_bytes, "error": x.error}
                for x in self.layers.packed
            ],
            "left_dense": dict(self.layers.skipped),
            "circumstances": dict(self.circumstances),
        }


def error_of(layer: PackedLayer) -> float:
    """Return the error of a layer that was measured."""
    assert layer.error is not None
    return layer.error
