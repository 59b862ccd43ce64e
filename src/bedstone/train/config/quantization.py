"""How the frozen base model is packed: axolotl's two switches, or bedstone's own key with every option of a scheme.

load_in_4bit: true            NF4 (or FP4), blocks of 64; `bnb_4bit_quant_type`, `bnb_4bit_use_double_quant`
load_in_8bit: true            int8, one scale a row
quantization: {scheme: ...}   any scheme with its options, and `skip`: layers that stay dense
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import CoreError, InvalidConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bedstone.quant import Scheme
    from bedstone.train.config.schema import TrainConfig

KEYS = ("load_in_4bit", "load_in_8bit", "quantization")
"""The keys each of which packs the base model."""


@dataclass(frozen=True, slots=True)
class BaseQuantization:
    """What happens to the linear layers of the base model.

    Attributes:
        scheme: How they are packed.
        skip: Names of layers that stay dense; `None` leaves dense what transformers does, the output head above all.
        trained: Names of layers that are trained whole, which stay dense too, since a packed weight takes no gradient.
    """

    scheme: Scheme
    skip: tuple[str, ...] | None = None
    trained: tuple[str, ...] = ()


def base_quantization(config: TrainConfig) -> BaseQuantization | None:
    """Return how a config packs the base model, `None` when it stays dense.

    Args:
        config: A sound config.

    >>> from bedstone.train.config import parse_config
    >>> base = {"base_model": "models/tiny", "datasets": [{"type": "stdlib_docstrings"}], "adapter": "lora"}
    >>> base_quantization(parse_config(base | {"load_in_4bit": True})).scheme
    NF4(block_size=64, double_quant=False)
    >>> base_quantization(parse_config(base)) is None
    True
    """
    from bedstone.quant import FP4, NF4, Int8, scheme_from_dict

    trained = tuple(config.lora_modules_to_save)
    if config.load_in_4bit:
        kind = {"nf4": NF4, "fp4": FP4}[config.bnb_4bit_quant_type]
        return BaseQuantization(kind(double_quant=config.bnb_4bit_use_double_quant), trained=trained)
    if config.load_in_8bit:
        return BaseQuantization(Int8(), trained=trained)
    if config.quantization is None:
        return None
    options = dict(config.quantization)
    skip = options.pop("skip", None)
    return BaseQuantization(scheme_from_dict(options), None if skip is None else tuple(skip), trained)


def quantization_problems(config: TrainConfig) -> Iterator[Problem]:
    """Yield what is wrong between the keys that pack the base model, and inside `quantization`."""
    written = [key for key in KEYS if getattr(config, key)]
    for key in written[1:]:
        message = f"stands beside `{written[0]}`; both say how the base model is packed."
        yield Problem(key, message, getattr(config, key), remedy="Keep one of the two.")
    if written and config.adapter is None:
        message = "packs a model that is trained whole, but packed weights are frozen."
        yield Problem(written[0], message, getattr(config, written[0]), remedy="Write `adapter: qlora`.")
    if config.adapter == "qlora" and not written:
        message = "is LoRA on a packed base model, but nothing packs it."
        yield Problem("adapter", message, "qlora", remedy="Write `load_in_4bit: true`, or `adapter: lora`.")
    if config.quantization is not None:
        yield from _option_problems(config.quantization)


def _option_problems(options: dict[str, Any]) -> Iterator[Problem]:
    from bedstone.quant import scheme_from_dict, schemes

    skip = options.get("skip", [])
    if not isinstance(skip, list) or not all(isinstance(name, str) and name for name in skip):
        message = f"must be a list of names of layers, not {skip!r}."
        yield Problem("quantization.skip", message, skip, remedy="Write for example [lm_head].")
    if not isinstance(options.get("scheme"), str):
        message = f"must name a scheme: {', '.join(schemes.names())}."
        # axolotl-rs wrote {bits: 4, quant_type: nf4, double_quant: true, block_size: 64}.
        other = options.get("quant_type")
        remedy = f"Write `scheme: {other}` instead of `bits` and `quant_type`." if isinstance(other, str) else ""
        yield Problem("quantization.scheme", message, options.get("scheme"), remedy=remedy)
        return
    try:
        scheme_from_dict({key: value for key, value in options.items() if key != "skip"})
    except InvalidConfigError as error:
        for problem in error.problems:
            path = f"quantization.{problem.path}" if problem.path else "quantization"
            yield replace(problem, path=path)
    except CoreError as error:  # an unknown scheme, or a plug-in that does not load
        yield Problem("quantization.scheme", str(error), options["scheme"])
