"""LoRA on a loaded model through HF peft, or the whole model trainable; refused before peft would fail obscurely."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from bedstone.adapters.rank import check_rank
from bedstone.core.errors import InvalidConfigError, StorageError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Generator

    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

    from bedstone.train.config import TrainConfig


def prepare_adapter(model: PreTrainedModel, config: TrainConfig, seed: int) -> torch.nn.Module:
    """Return the model to train: wrapped in LoRA, or whole when `adapter` is empty.

    Args:
        model: The base model; it is changed in place.
        config: `adapter`, `lora_*` and `peft_*` decide.
        seed: Of the adapter's first weights; 0 to 2^63 - 1.

    Raises:
        UnknownNameError: A target or a module to save is not in the model; lists those that are.
        RankTooLargeError: The rank is larger than the smaller side of a target layer.
        InvalidConfigError: peft refuses the model.
    """
    if config.adapter is None:
        return model.requires_grad_(True)
    from peft import get_peft_model

    _check_targets(model, config)
    _check_modules_to_save(model, config)
    with torch.random.fork_rng(), _without_known_warning():
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, _lora(model, config))
        except ValueError as error:
            message = f"peft cannot adapt this model: {' '.join(str(error).split())}"
            remedy = "Change `lora_target_modules`, or leave `adapter` empty to train everything."
            raise InvalidConfigError(message, argument="lora_target_modules", remedy=remedy) from error


def load_adapter(model: PreTrainedModel, folder: str) -> PeftModel:
    """Return the base model with the adapter of a folder, frozen.

    Raises:
        StorageError: The folder holds no adapter, a damaged one, or one for another model.
    """
    from peft import PeftModel

    try:
        with _without_known_warning():
            return PeftModel.from_pretrained(model, folder)
    except Exception as error:  # of peft, safetensors or torch: they share no class
        said = " ".join(str(error).split()).rstrip(".")
        message = f"The adapter in {folder} could not be loaded: {said}."
        raise StorageError(
            message, path=folder, remedy="Write it again with `bedstone train CONFIG --resume auto`."
        ) from error


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that are trained, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _lora(model: PreTrainedModel, config: TrainConfig) -> LoraConfig:
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.lora_target_modules or "all-linear",
        modules_to_save=list(config.lora_modules_to_save) or None,  # a copy, since peft adds to the list
        ensure_weight_tying=_trains_tied_weights(model, config),
        use_dora=config.peft_use_dora,
        use_rslora=config.peft_use_rslora,
    )


def _trains_tied_weights(model: PreTrainedModel, config: TrainConfig) -> bool:
    """Whether the embedding or an output head that shares its weights is trained whole: they then go on sharing them."""
    from peft.utils.constants import EMBEDDING_LAYER_NAMES

    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    return bool(tied) and any(name.rpartition(".")[2] in EMBEDDING_LAYER_NAMES for name in config.lora_modules_to_save)


@contextmanager
def _without_known_warning() -> Generator[None]:
    """Peft 0.21 reads a name that transformers 5 has renamed, and tells what it does by itself: no user can act on it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False but the target module is `Conv1D`")
        yield


def _check_targets(model: PreTrainedModel, config: TrainConfig) -> None:
    linear = _linear_layers(model)
    head: Any = model.get_output_embeddings()
    for target in config.lora_target_modules or ():
        matched = {name: m for name, m in linear.items() if _ends_with(name, target)}
        if not matched:
            known = {name.rpartition(".")[2] for name in linear}
            raise UnknownNameError("linear layer of the model", target, known, remedy="Change `lora_target_modules`.")
        check_rank(config.lora_r, matched, argument="lora_r")
    if not config.lora_target_modules:
        adapted = {name: m for name, m in linear.items() if m is not head}
        check_rank(config.lora_r, adapted, argument="lora_r")


def _check_modules_to_save(model: PreTrainedModel, config: TrainConfig) -> None:
    # peft leaves a name that it does not find out in silence.
    with_weights = [name for name, m in model.named_modules() if next(m.parameters(recurse=False), None) is not None]
    for wanted in config.lora_modules_to_save:
        if not any(_ends_with(name, wanted) for name, _ in model.named_modules()):
            known = {name.rpartition(".")[2] for name in with_weights}
            raise UnknownNameError("layer of the model", wanted, known, remedy="Change `lora_modules_to_save`.")


def _linear_layers(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    from transformers.pytorch_utils import Conv1D  # a linear layer with its weight transposed, in GPT-2 and its kin

    return {name: m for name, m in model.named_modules() if isinstance(m, (torch.nn.Linear, Conv1D))}


def _ends_with(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")
