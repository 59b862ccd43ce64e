"""A peft adapter merged into its base model, without loss or with the loss told.

peft merges layer by layer into whatever the weight is. Into packed weights that rounds the sum to their grid, and a failure
half-way leaves some layers merged and others not. Here each layer is unpacked first and merges into a dense copy, and every
layer is put back when one of them fails. With `exact=False` the merged weight is packed again, and measured.

What was shared and is still equal after the merge goes on sharing; an output head that the merge parts from its embedding is
said to be untied in the model's config, as peft does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import nn

from bedstone.adapters.errors import AdapterNotFoundError, MergeError
from bedstone.adapters.merge_report import MergedLayer, MergeReport
from bedstone.adapters.snapshot import Snapshot
from bedstone.core.errors import CoreError, InvalidConfigError, UnsupportedError
from bedstone.quant import QuantizedTensor

if TYPE_CHECKING:
    from peft import PeftModel

Place = tuple[nn.Module, str]
"""A module and the name of one of its parameters."""


@overload
def merge(model: PeftModel, *, exact: Literal[True] = ..., adapter: str | None = ...) -> nn.Module: ...
@overload
def merge(model: PeftModel, *, exact: Literal[False], adapter: str | None = ...) -> MergeReport: ...
def merge(model: PeftModel, *, exact: bool = True, adapter: str | None = None) -> nn.Module | MergeReport:
    """Merge an adapter into the weights of its base model and take the adapters off.

    Args:
        model: From `get_peft_model` or `PeftModel.from_pretrained`; of no use afterwards.
        exact: Unpack the layers that have an adapter and merge into dense weights of their dtype. A model in half precision rounds
            to it; `model.float()` before the merge keeps everything. When false, pack the merged weights again, by the
            same schemes, which loses a part of the adapter that is measured and reported.
        adapter: The name of one; `None` merges those that are active.

    Returns:
        The base model; with `exact=False` the report of what the merge cost, which holds the model.

    Raises:
        AdapterNotFoundError: No adapter has this name.
        MergeError: The merged weights are not finite, a scheme cannot hold them, an adapter is merged already, or peft
            refuses. The model is as it was.
        UnsupportedError: Prompts and prefixes are no weights, and cannot be merged.
        InvalidConfigError: `model` is no `PeftModel`.

    >>> from peft import LoraConfig, get_peft_model
    >>> import bedstone as bs
    >>> layers = torch.nn.Sequential(torch.nn.Linear(64, 64))
    >>> report = bs.quantize(layers, "int8")
    >>> model = get_peft_model(layers, LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
    >>> print(merge(model, exact=False))  # doctest: +ELLIPSIS
    'default' was merged into 1 packed layers.
    Its changes kept 100% of their size; relative error 0.0...
    0 (int8): kept 100%, error 0.0...
    """
    names = _adapters(model, adapter)
    merging = _Merge(model, names, repack=not exact)
    try:
        for name, layer in _outermost(model.get_base_model()):
            merging.add(name, layer)
        base = merging.finish(adapter)
    except BaseException:
        merging.undo()
        raise
    return base if exact else MergeReport(base, names, tuple(merging.layers))


class _Merge:
    """A merge under way, which can be undone until it is finished.

    Args:
        model: With the adapters.
        names: The adapters to merge.
        repack: Whether packed weights are packed again.
    """

    def __init__(self, model: PeftModel, names: tuple[str, ...], *, repack: bool) -> None:
        self.model, self.names, self.repack = model, names, repack
        self.layers: list[MergedLayer] = []
        self.snapshots: list[Snapshot] = []
        self.places_of: dict[nn.Parameter, list[Place]] = {}

    def add(self, name: str, layer: nn.Module) -> None:
        """Merge one adapter layer, and those inside it, into dense copies of their base weights."""
        tuners = _tuners(layer)
        self._refuse_merged(name, tuners)
        snapshot = Snapshot(layer)
        self.snapshots.append(snapshot)
        copied = self._copy_base(tuners)
        self._merge_tuners(name, tuners)
        if not any(tuner.merged for tuner in tuners):  # the adapters to merge are not in this layer
            snapshot.restore()
            return
        for (base, which), old in copied.items():
            self._settle(name, base, which, old)
            self.places_of.setdefault(old, []).append((base, which))

    def finish(self, adapter: str | None) -> nn.Module:
        """Take the adapters off and return the base model."""
        self._share_again()
        for tuner in _tuners(self.model):
            tuner.merged_adapters.clear()  # else peft would unmerge when another adapter becomes the active one
        if adapter is not None and self.names != tuple(self.model.active_adapters):
            self.model.set_adapter(adapter)  # whose whole modules, if it has any, are those to keep
        tuner_model: Any = self.model.base_model
        base = tuner_model.unload()
        _say_untied(base)
        return base

    def undo(self) -> None:
        """Put every layer back."""
        for snapshot in reversed(self.snapshots):
            snapshot.restore()

    def _refuse_merged(self, name: str, tuners: list[Any]) -> None:
        if merged := [adapter for tuner in tuners for adapter in tuner.merged_adapters]:
            raise MergeError(
                f"{merged[0]!r} is merged there already.",
                layer=name,
                adapter=", ".join(self.names),
                remedy="Unmerge with `model.unmerge_adapter()`; if the layer is packed, load the base model again, since its "
                "weights were rounded.",
            )

    def _copy_base(self, tuners: list[Any]) -> dict[Place, nn.Parameter]:
        """Give the base layers dense copies of their parameters and return what they had."""
        bases = {id(tuner.get_base_layer()): tuner.get_base_layer() for tuner in tuners}
        places = {(base, which): old for base in bases.values() for which, old in base.named_parameters(recurse=False)}
        for (base, which), old in places.items():
            dense = old.dequantize() if isinstance(old, QuantizedTensor) else old.detach().clone()
            setattr(base, which, nn.Parameter(dense, requires_grad=old.requires_grad))
        return places

    def _merge_tuners(self, name: str, tuners: list[Any]) -> None:
        for tuner in tuners:
            if tuner.merged:  # by the layer around it
                continue
            try:
                tuner.merge(safe_merge=True, adapter_names=list(self.names))
            except (ValueError, RuntimeError) as error:  # peft's own refusals; NotImplementedError is one of them
                reason = " ".join(str(error).split()).rstrip(".")
                raise self._error(name, f"{reason or type(error).__name__}.") from error

    def _settle(self, name: str, base: nn.Module, which: str, old: nn.Parameter) -> None:
        """Check a merged parameter and, when it was packed and shall be again, pack it and measure the cost."""
        merged = getattr(base, which)
        if not bool(torch.isfinite(merged).all()):
            raise self._error(name, f"its merged {which} is not finite.")
        if not (self.repack and isinstance(old, QuantizedTensor)):
            return
        before = old.dequantize()
        unchanged = torch.equal(merged, before)  # then packing again could only do harm: a ternary scale would shrink
        try:
            packed = old if unchanged else old.scheme.quantize(merged)
        except CoreError as error:
            raise self._error(name, str(error)) from error
        self.layers.append(
            MergedLayer.measure(name, old.scheme.name, before, merged.detach(), packed.detach().dequantize())
        )
        setattr(base, which, nn.Parameter(packed, requires_grad=False))

    def _share_again(self) -> None:
        for places in self.places_of.values():
            first = getattr(*places[0])
            for base, which in places[1:]:
                if torch.equal(getattr(base, which), first):
                    setattr(base, which, first)

    def _error(self, layer: str, reason: str) -> MergeError:
        return MergeError(reason, layer=layer, adapter=", ".join(self.names))


def _adapters(model: PeftModel, adapter: str | None) -> tuple[str, ...]:
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        message = f"`model` (a {type(model).__name__}) must be a PeftModel, as `get_peft_model` returns it."
        raise InvalidConfigError(message, argument="model", value=model)
    if adapter is not None and adapter not in model.peft_config:
        raise AdapterNotFoundError(adapter, model.peft_config)
    names = tuple(model.active_adapters) if adapter is None else (adapter,)
    for name in names:
        if model.peft_config[name].is_prompt_learning:
            kind = str(getattr(model.peft_config[name].peft_type, "value", "")).lower()
            message = f"The adapter {name!r} is a {kind} adapter: it adds to the input, not to weights, so nothing can be merged."
            raise UnsupportedError(message, feature="merge", remedy="Keep the adapter beside the model.")
    return names


def _tuners(model: nn.Module) -> list[Any]:
    """The adapter layers of a module, outer ones first."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def _outermost(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Adapter layers that lie in no other adapter layer, by name."""
    tuners = _tuners(model)
    inner = {id(module) for tuner in tuners for module in _tuners(tuner) if module is not tuner}
    wanted = {id(tuner) for tuner in tuners} - inner
    return [(name, module) for name, module in model.named_modules() if id(module) in wanted]


def _say_untied(model: Any) -> None:
    """Correct the model's config when its output head has come to differ from its embedding."""
    config: Any = getattr(model, "config", None)
    if not getattr(config, "tie_word_embeddings", False):
        return
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if all(end is not None for end in ends) and ends[0].weight is not ends[1].weight:
        config.tie_word_embeddings = False
