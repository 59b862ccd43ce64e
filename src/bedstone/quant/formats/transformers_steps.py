"""The two steps that transformers takes for each packed weight while it loads a model.

from           to                    step
dense          packed                `PackWeight`: one dense tensor is read, packed and let go before the next one
parts          packed                `JoinParts`: the parts `weight.<part>` of a file become one weight again

transformers catches what a step raises, prints each traceback in a table and raises an error of its own. So that errors arrive
as they are, a step hands its own to the quantizer, which raises it when reading ends; after the first no weight is worked on.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

from torch import nn
from transformers.core_model_loading import ConversionOps, WeightConverter

from bedstone.core.errors import CoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch

    from bedstone.quant.formats.transformers_quantizer import BedstoneQuantizer
    from bedstone.quant.tensor import QuantizedTensor


class _Step(ConversionOps):
    """A step of loading that tells the quantizer what went wrong.

    Args:
        quantizer: Of the model that is loaded.
    """

    def __init__(self, quantizer: BedstoneQuantizer) -> None:
        self.quantizer = quantizer
        self.hf_quantizer = quantizer  # a mark: transformers does not cast the tensors of a step that has it

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # transformers copies a step for each weight: all of them report to one quantizer

    def guarded(self, work: Callable[..., torch.Tensor], name: str, missing_keys: set[str] | None) -> dict[str, Any]:
        """Return one weight under its name; nothing once something failed.

        Args:
            work: Makes the weight.
            name: Of the weight.
            missing_keys: The weights that transformers has not seen yet; it fills them with random numbers at the end.
        """
        if self.quantizer.failure is None:
            try:
                return {name: work()}
            except Exception as error:  # noqa: BLE001 - raised by the quantizer when reading ends
                if isinstance(error, CoreError) and name not in error.message:
                    error.message = f"{name}: {error.message}"
                self.quantizer.failure = error
        (missing_keys or set()).discard(name)
        return {}


class PackWeight(_Step):
    """Packs the dense tensors of the layers that are to be packed."""

    def convert(  # pyright: ignore[reportIncompatibleMethodOverride] - transformers passes more by name
        self, input_dict: dict[str, Any], *, model: nn.Module, missing_keys: set[str] | None = None, **others: Any
    ) -> dict[str, Any]:
        """Return the weights of `input_dict`, packed where they are to be packed; empties it, so that no dense one stays."""
        del others
        packed: dict[str, Any] = {}
        for name in list(input_dict):
            value = input_dict.pop(name)
            dense = value[0] if isinstance(value, list) else value
            packed |= self.guarded(partial(self.quantizer.pack, model, name, dense), name, missing_keys)
            del value, dense
        return packed


class JoinParts(_Step):
    """Makes a packed weight of the parts that a file holds of it."""

    def convert(  # pyright: ignore[reportIncompatibleMethodOverride] - transformers passes more by name
        self,
        input_dict: dict[str, Any],
        *,
        model: nn.Module,
        full_layer_name: str,
        missing_keys: set[str] | None = None,
        **others: Any,
    ) -> dict[str, Any]:
        """Return one packed weight under its whole name; keys of `input_dict` are `weight.<part>`."""
        del others
        parts = {pattern.rpartition(".")[2]: tensors[0] for pattern, tensors in input_dict.items()}
        join = partial(self.quantizer.join, model, full_layer_name, parts)
        return self.guarded(join, full_layer_name, missing_keys)


class OneWay(WeightConverter):
    """A conversion that saving does not undo: a packed weight is saved as its parts, under the name it has in the model."""

    __slots__ = ()

    def was_used(self) -> bool:
        """Return False: transformers keeps the conversions that were used, to undo them."""
        return False


def as_parameter(weight: QuantizedTensor) -> nn.Parameter:
    """Return a packed weight as a frozen parameter."""
    return nn.Parameter(weight, requires_grad=False)


def one_way(conversion: Any, packed: Iterable[str]) -> Any:
    """Return a conversion of transformers' as one that saving does not undo, where it makes a weight that is packed.

    Undoing it would join or cut parts, as if they were dense.

    Args:
        conversion: Of a model's checkpoint.
        packed: The weights that are packed, by name.
    """
    if not isinstance(conversion, WeightConverter):
        return conversion
    try:
        undone = conversion.reverse_transform()
    except NotImplementedError:  # transformers cannot undo it either
        return conversion
    if not any(undone.rename_source_key(name)[1] for name in packed):
        return conversion
    sources, targets = conversion._original_source_patterns, conversion._original_target_patterns  # noqa: SLF001 - as `copy` does
    made = OneWay(list(sources), list(targets), conversion.operations, conversion.force_cpu)
    made.scope_prefix, made.base_model_prefix = conversion.scope_prefix, conversion.base_model_prefix
    return made
