"""`BedstoneConfig`: what is handed to transformers' `from_pretrained`, and what stands in the `config.json` of a packed model.

    "quantization_config": {
      "quant_method": "bedstone",
      "format_version": 1,
      "scheme": {"scheme": "nf4", "block_size": 64, "double_quant": false},
      "skip": null,
      "modules_to_save": []
    }

transformers finds the class under the name `bedstone` in its registry, where importing this module puts it. It cannot find a
package by itself: `from bedstone.quant import BedstoneConfig` must run before a packed model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers.quantizers.auto import register_quantization_config
from transformers.utils.quantization_config import QuantizationConfigMixin

from bedstone.core.errors import InvalidConfigError
from bedstone.quant.formats.errors import FormatVersionError
from bedstone.quant.formats.flat import VERSION
from bedstone.quant.scheme import Scheme, get_scheme, scheme_from_dict

if TYPE_CHECKING:
    from collections.abc import Sequence

METHOD = "bedstone"
"""The name of the quantization method in transformers' registries and in `config.json`."""


class BedstoneConfig(QuantizationConfigMixin):
    """Load a transformers model packed: every `nn.Linear` keeps its class, its weight becomes a `QuantizedTensor`.

    Args:
        scheme: A scheme or its name (`nf4`, `fp4`, `int8`, `fp8`, `ternary`, or a plug-in's); `Scheme.to_dict()` works too.
        skip: The linear layers to leave dense, named as for `bedstone.quantize`; an empty list packs all that can be packed.
            `None` leaves dense what transformers leaves dense: the output embedding, the last layer, and what the model asks to
            keep in float32. A layer that shares its weight with an embedding stays dense in any case.
        modules_to_save: Layers that an adapter will train whole, as in peft's `LoraConfig`: they stay dense too, since a packed
            weight takes no gradient. Names of layers that are not linear do no harm.

    Raises:
        UnknownNameError: No scheme has this name.
        InvalidConfigError: `skip` or `modules_to_save` is not a list of names, or the scheme's options are not allowed.

    >>> from bedstone.quant import NF4
    >>> config = BedstoneConfig(NF4(double_quant=True), skip=["lm_head"])
    >>> config.to_dict()["scheme"]
    {'scheme': 'nf4', 'block_size': 64, 'double_quant': True}
    >>> BedstoneConfig.from_dict(config.to_dict()).scheme == config.scheme
    True
    >>> BedstoneConfig.from_dict({**config.to_dict(), "format_version": 2})
    Traceback (most recent call last):
    bedstone.quant.formats.errors.FormatVersionError: The packed weights are of format version 2, and this bedstone reads \
up to version 1. Install a newer bedstone.
    """

    scheme: Scheme
    skip: list[str] | None
    modules_to_save: list[str]

    def __init__(
        self,
        scheme: str | Scheme | Mapping[str, Any] = "nf4",
        *,
        skip: Sequence[str] | None = None,
        modules_to_save: Sequence[str] = (),
    ) -> None:
        self.quant_method = METHOD  # pyright: ignore[reportAttributeAccessIssue] - the base class lists transformers' own
        self.scheme = scheme_from_dict(scheme) if isinstance(scheme, Mapping) else get_scheme(scheme)
        for argument, names in {"skip": skip, "modules_to_save": modules_to_save}.items():
            if isinstance(names, str) or not all(isinstance(name, str) for name in names or ()):
                message = f"`{argument}` (={names!r}) must be a list of layer names."
                remedy = f'Write `{argument}=["lm_head"]`.'
                raise InvalidConfigError(message, argument=argument, value=names, remedy=remedy)
        self.skip = None if skip is None else list(skip)
        self.modules_to_save = list(modules_to_save)

    def to_dict(self) -> dict[str, Any]:
        """Return what stands in `config.json`."""
        return {
            "quant_method": METHOD,
            "format_version": VERSION,
            "scheme": self.scheme.to_dict(),
            "skip": None if self.skip is None else list(self.skip),
            "modules_to_save": list(self.modules_to_save),
        }

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Return the configuration that `to_dict` described; transformers calls this.

        Args:
            config_dict: From a `config.json`, or written by hand: `{"quant_method": "bedstone", "scheme": "nf4"}`.
            return_unused_kwargs: Return `kwargs` too, as transformers' own configurations do.
            kwargs: Nothing of ours; not used.

        Raises:
            FormatVersionError: A newer bedstone wrote it.
            InvalidConfigError: It has a key that is not known.
            UnknownNameError: No scheme has this name; its plug-in is not installed.
        """
        version = config_dict.get("format_version", VERSION)
        if not isinstance(version, int) or version > VERSION:
            raise FormatVersionError(version=version, newest=VERSION)
        known = {"quant_method", "format_version", "scheme", "skip", "modules_to_save"}
        if unknown := sorted(set(config_dict) - known):
            message = f"The quantization_config of a bedstone model has no key {unknown[0]!r}."
            raise InvalidConfigError(message, argument=unknown[0], value=config_dict[unknown[0]])
        trained = config_dict.get("modules_to_save", ())
        config = cls(config_dict.get("scheme", "nf4"), skip=config_dict.get("skip"), modules_to_save=trained)
        return (config, kwargs) if return_unused_kwargs else config


register_quantization_config(METHOD)(BedstoneConfig)
