"""How transformers packs a model while it loads it, saves it packed, and loads that again.

transformers finds the quantizer of a method in its registry and calls the hooks below, in this order:

quantize on load    choose the layers -> pack each of their weights as it is read -> check, tell
load packed         read what the files describe -> join the parts of each weight -> check, tell
save                take the packed weights apart, describe them in the metadata of each file

The first step finds a model without memory, on the meta device. Only public hooks are used, and no module is replaced: a packed
weight is a tensor in an ordinary `nn.Linear`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers.core_model_loading import WeightRenaming
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer

from bedstone.core.dtype import parse_dtype
from bedstone.core.errors import UnsupportedError
from bedstone.core.events import emit
from bedstone.quant.errors import QuantizationError
from bedstone.quant.events import ModelQuantized
from bedstone.quant.formats.flat import expected_parts, flatten_state_dict
from bedstone.quant.formats.transformers_config import METHOD, BedstoneConfig
from bedstone.quant.formats.transformers_files import PackedFiles
from bedstone.quant.formats.transformers_steps import JoinParts, OneWay, PackWeight, as_parameter, one_way
from bedstone.quant.model import LayerPlan, dequantize, names_layer
from bedstone.quant.tensor import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bedstone.quant.scheme import Parts


class BedstoneQuantizer(HfQuantizer):
    """transformers' view of bedstone; made by `from_pretrained`.

    Args:
        quantization_config: The scheme, and what stays dense.
        kwargs: `pre_quantized`: whether the files hold packed weights.

    Attributes:
        failure: The first error while weights were read; raised when reading ends.
    """

    requires_calibration = False
    quantization_config: BedstoneConfig

    def __init__(self, quantization_config: BedstoneConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.failure: Exception | None = None
        self._pending: set[str] = set()  # the weights that are still to be packed, by name
        self._left_dense: dict[str, str] = {}
        self._files = PackedFiles({})

    # --- what transformers asks ----------------------------------------------------------------------

    @property
    def is_trainable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - the base has no types
        """Whether adapters can be trained on it: yes."""
        return True

    @property
    def is_compileable(self) -> bool:
        """Whether `torch.compile` takes it: yes, whole."""
        return True

    def is_serializable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - the base has no types
        """Whether `save_pretrained` works: yes."""
        return True

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """Refuse to place layers where they would have to be copied for each step.

        Raises:
            UnsupportedError: `device_map` leaves layers on the disk, or on the CPU beside a GPU.
        """
        del args, kwargs
        places = sorted({str(place) for place in device_map.values()}) if isinstance(device_map, dict) else []
        if "disk" in places or ("cpu" in places and len(places) > 1):
            message = f"Packed weights cannot be offloaded, but `device_map` places layers on {' and '.join(places)}."
            remedy = 'Pack in fewer bits, or place the whole model on one device: `device_map={"": "cpu"}`.'
            raise UnsupportedError(message, feature="offload", remedy=remedy)

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        """Tell whether a weight is still to be packed."""
        del model, kwargs
        return param_name in self._pending

    def param_element_size(self, model: Any, param_name: str, param: torch.Tensor) -> float:
        """Return the bytes an element, scales included, from which `device_map="auto"` reckons."""
        if param_name in self._pending and param.numel():
            parts = expected_parts(self.quantization_config.scheme, tuple(param.shape), param.dtype)
            return sum(part.nbytes for part in parts.values()) / param.numel()
        return super().param_element_size(model, param_name, param)

    # --- before the weights are read -----------------------------------------------------------------

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: Sequence[str] | None = None, **kwargs: Any
    ) -> Any:
        del kwargs
        if self.pre_quantized:
            self._files = PackedFiles.read(checkpoint_files or ())
            return model
        plan = LayerPlan(model, *self._left_out(model))
        self._left_dense = dict(plan.skipped)
        self._pending = {f"{name}.weight" for name in plan.chosen}
        if not self._pending:
            raise self._nothing_to_pack()
        return model

    def _left_out(self, model: Any) -> tuple[Sequence[str], dict[str, str]]:
        """Return the layers that are skipped by name, and those that stay dense for another reason."""
        tied = {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}
        names = [name for name, _ in _linear_layers(model)]
        reasons = {name: "its weight is shared with an embedding" for name in names if f"{name}.weight" in tied}
        for name in names:
            if any(names_layer(trained, name) for trained in self.quantization_config.modules_to_save):
                reasons.setdefault(name, "it is trained whole")
        if self.quantization_config.skip is not None:
            return self.quantization_config.skip, reasons
        usual = self.get_modules_to_not_convert(model, None, list(model._keep_in_fp32_modules or ()))  # noqa: SLF001 - as its own quantizers do
        for name in names:
            if any(names_layer(pattern, name) for pattern in usual):
                reasons.setdefault(name, "transformers leaves it dense; `skip=[]` packs it")
        return (), reasons

    def _nothing_to_pack(self) -> QuantizationError:
        told = "; ".join(f"{name} stays dense: {reason}" for name, reason in self._left_dense.items())
        scheme = self.quantization_config.scheme.name
        message = f"The model has no linear layer to pack as {scheme}{f' ({told})' if told else ''}."
        return QuantizationError(message, scheme=scheme, remedy="Load it without a quantization_config.")

    # --- while the weights are read ------------------------------------------------------------------

    def get_quantize_ops(self) -> PackWeight:
        """Return the step that packs a dense weight."""
        return PackWeight(self)

    def update_weight_conversions(self, weight_conversions: list[Any], model: Any) -> list[Any]:
        """Return the conversions of the checkpoint behind ours; those that make packed weights are not undone by saving."""
        self._files = self._files.renamed(model, [c for c in weight_conversions if isinstance(c, WeightRenaming)])
        joins = [OneWay(parts, weight, [JoinParts(self)]) for weight, parts in self._files.patterns().items()]
        packed = {*self._pending, *self._files.weights}
        return joins + [one_way(conversion, packed) for conversion in weight_conversions]

    def pack(self, model: Any, name: str, dense: torch.Tensor) -> torch.Tensor:
        """Return a weight of the checkpoint as the model takes it.

        Args:
            model: That is loaded.
            name: Of the weight in the model.
            dense: As read. One of another shape than the model's is returned as it is: transformers tells of it.
        """
        if name not in self._pending:
            return dense
        self._pending.remove(name)  # from here on transformers checks the shape, as of any other
        if dense.shape != model.get_parameter(name).shape:
            return dense
        return as_parameter(self.quantization_config.scheme.quantize(dense))

    def join(self, model: Any, name: str, parts: Parts) -> torch.Tensor:
        """Return a packed weight of the parts that the files hold, in the dtype that the model has now.

        Raises:
            WeightFormatError: They are not what the files describe.
        """
        weight = self._files.weight(name, parts)
        return as_parameter(weight.with_parts(weight.parts, model.get_parameter(name).dtype))

    # --- when all is read, and later -----------------------------------------------------------------

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        del kwargs
        if self.failure is not None:
            raise self.failure
        self._files.check_all_joined(model)
        self._pending.clear()
        otherwise = "it is dense in the files" if self.pre_quantized else "the checkpoint has no weight of its shape"
        emit(_told(model, self.quantization_config.scheme.name, self._left_dense, otherwise))
        return model

    def get_state_dict_and_metadata(  # pyright: ignore[reportIncompatibleMethodOverride] - the base has no types
        self, model: Any
    ) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Return the state of a model as plain tensors, and the metadata that describe the packed ones."""
        return flatten_state_dict(model.state_dict())

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:
        dequantize(
            model, dtype=None if dtype is None else parse_dtype(dtype)
        )  # transformers hands its name after a save
        return model


register_quantizer(METHOD)(BedstoneQuantizer)


def _linear_layers(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Linear]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))


def _told(model: torch.nn.Module, scheme: str, reasons: dict[str, str], otherwise: str) -> ModelQuantized:
    layers = dict(_linear_layers(model))
    packed = {name: layer.weight for name, layer in layers.items() if isinstance(layer.weight, QuantizedTensor)}
    schemes = {weight.scheme for weight in packed.values()}
    return ModelQuantized(
        scheme=", ".join(sorted({one.name for one in schemes})) or scheme,
        options=next(iter(schemes)).to_dict() if len(schemes) == 1 else {},
        layers=len(packed),
        dense_bytes=sum(weight.nbytes for weight in packed.values()),
        packed_bytes=sum(weight.packed_bytes for weight in packed.values()),
        left_dense={name: reasons.get(name, otherwise) for name in layers if name not in packed},
    )
