"""LoRA on a loaded model through HF peft, or the whole model trainable; refused before peft would fail obscurely."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import InvalidConfigError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Generator

    from peft import PeftModel
    from transformers import PreTrainedModel

    from bedstone.train.config import TrainConfig


def prepare_adapter(model: PreTrainedModel, config: TrainConfig, seed: int) -> torch.nn.Module:
    """Return the model to train: wrapped in LoRA, or whole when `adapter` is empty.

    Args:
        model: The base model; it is changed in place.
        config: `adapter`, `lora_*` and `peft_*` decide.
        seed: Of the adapter's first weights; 0 to 2^63 - 1.

    Raises:
        UnknownNameError: A target module is not in the model; lists the linear layers that are.
        InvalidConfigError: The rank is larger than the smaller side of a target layer.
    """
    if config.adapter is None:
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    _check_targets(model, config)
    with torch.random.fork_rng(), _without_known_warning():
        torch.manual_seed(seed)
        return get_peft_model(
            model,
            LoraConfig(
                task_type="CAUSAL_LM",
                r=config.lora_r,
                lora_alpha=config.lora_alpha,
                lora_dropout=config.lora_dropout,
                target_modules=config.lora_target_modules or "all-linear",
                modules_to_save=config.lora_modules_to_save or None,
                use_dora=config.peft_use_dora,
                use_rslora=config.peft_use_rslora,
            ),
        )


def load_adapter(model: PreTrainedModel, folder: str) -> PeftModel:
    """Return the base model with the adapter of a folder, frozen."""
    from peft import PeftModel

    with _without_known_warning():
        return PeftModel.from_pretrained(model, folder)


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that are trained, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@contextmanager
def _without_known_warning() -> Generator[None]:
    """Peft 0.21 reads a name that transformers 5 has renamed; a user can do nothing about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _check_targets(model: PreTrainedModel, config: TrainConfig) -> None:
    linear = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    head: Any = model.get_output_embeddings()
    for target in config.lora_target_modules or ():
        matched = {name: m for name, m in linear.items() if name == target or name.endswith(f".{target}")}
        if not matched:
            known = {name.rpartition(".")[2] for name in linear}
            raise UnknownNameError("linear layer of the model", target, known, remedy="Change `lora_target_modules`.")
        _check_rank(config.lora_r, matched)
    if not config.lora_target_modules:
        _check_rank(config.lora_r, {name: m for name, m in linear.items() if m is not head})


def _check_rank(rank: int, layers: dict[str, torch.nn.Linear]) -> None:
    for name, layer in layers.items():
        largest = min(layer.in_features, layer.out_features)
        if rank > largest:
            raise InvalidConfigError(
                f"`lora_r` (={rank}) must not exceed the smaller side of {name}, "
                f"min({layer.in_features}, {layer.out_features}) = {largest}.",
                argument="lora_r",
                value=rank,
                remedy=f"Set `lora_r` to at most {largest}, or target other layers.",
            )
