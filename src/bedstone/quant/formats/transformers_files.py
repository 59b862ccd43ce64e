"""What the files of a packed transformers model say of its weights, before any of them is read.

Each file carries the same description (`flat.py`) in its metadata. The names in it are those of the files; a model may name its
weights otherwise, for example a base model that is loaded from the files of one with a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from transformers.core_model_loading import rename_source_key

from bedstone.quant.formats.errors import WeightFormatError
from bedstone.quant.formats.flat import FORMAT, METADATA_KEY, packed_weights, part_names, weight_from_parts
from bedstone.quant.tensor import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers.core_model_loading import WeightRenaming

    from bedstone.quant.scheme import Parts

_DAMAGED = "The files are damaged or incomplete; get them again."


@dataclass(frozen=True, slots=True)
class PackedFiles:
    """The packed weights that the files of a model hold.

    Attributes:
        weights: What describes each weight, by name.
    """

    weights: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, paths: Sequence[str]) -> PackedFiles:
        """Return what the files say.

        Args:
            paths: The safetensors files of one model.

        Raises:
            WeightFormatError: One cannot be read, or none of them has a description.
            FormatVersionError: A newer bedstone wrote them.
        """
        weights: dict[str, dict[str, Any]] = {}
        described = False
        for path in paths:
            metadata = _metadata(path)
            described |= METADATA_KEY in metadata
            weights |= packed_weights(metadata)
        if not described:
            where = ", ".join(paths) or "a state dict"
            message = f"config.json says that the weights are packed by bedstone, but {where} does not describe them."
            raise WeightFormatError(message, format=FORMAT, remedy=_REWRITTEN)
        return cls(weights)

    def renamed(self, model: Any, renamings: Sequence[WeightRenaming]) -> PackedFiles:
        """Return the same with the names that the weights have in a model.

        Args:
            model: That is loaded.
            renamings: What transformers renames for this model.
        """
        own = model.state_dict()
        weights = {
            name
            if name in own
            else rename_source_key(name, list(renamings), [], model.base_model_prefix, own)[0]: described
            for name, described in self.weights.items()
        }
        return PackedFiles(weights)

    def patterns(self) -> dict[str, list[str]]:
        """Return the ends of the names that belong together: `{"weight": ["weight.absmax", "weight.packed"]}`.

        Raises:
            WeightFormatError: A description is damaged.
        """
        ends: dict[str, set[str]] = {}
        for name, description in self.weights.items():
            last = name.rpartition(".")[2]
            ends.setdefault(last, set()).update(f"{last}.{part}" for part in part_names(name, description))
        return {weight: sorted(parts) for weight, parts in ends.items()}

    def weight(self, name: str, parts: Parts) -> QuantizedTensor:
        """Return one weight of its parts.

        Raises:
            WeightFormatError: They are not what the files describe, or nothing describes them.
        """
        if name not in self.weights:
            message = f"The files hold parts of a packed weight {name!r} that they do not describe."
            raise WeightFormatError(message, format=FORMAT, weight=name, remedy=_DAMAGED)
        return weight_from_parts(name, self.weights[name], parts)

    def check_all_joined(self, model: Any) -> None:
        """Refuse files that describe a weight and hold no part of it: transformers filled it with random numbers.

        Raises:
            WeightFormatError: They do.
        """
        for name, weight in model.named_parameters():
            described = self.weights.get(name)
            # Of another shape: transformers was told to ignore that, and reports it.
            if described and not isinstance(weight, QuantizedTensor) and list(weight.shape) == described["shape"]:
                self.weight(name, {})


_REWRITTEN = (
    "Another program may have rewritten the files without their metadata. Save the model with `save_pretrained` again."
)


def _metadata(path: str) -> dict[str, str]:
    """Return the metadata of one file; reads its first bytes only."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        message = f"{path} cannot be read: {error}."
        raise WeightFormatError(message, format=FORMAT, remedy=_DAMAGED, path=path) from error
