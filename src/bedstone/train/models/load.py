"""A tokenizer and a model from a located source; transformers does the work, its failures become ours."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import CoreError
from bedstone.core.torch_errors import translate_torch_errors
from bedstone.train.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Generator

    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from bedstone.train.config import BaseQuantization
    from bedstone.train.models.source import ModelSource

_SHOWN_CHARS = 400  # of what a library says; some list every class they know
_NETWORK_TIMEOUT_S = 10


def load_tokenizer(source: ModelSource, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model.

    Raises:
        ModelLoadError: It cannot be found, read or downloaded.
    """
    from transformers import AutoTokenizer

    with _translated(source):
        return AutoTokenizer.from_pretrained(
            source.location, trust_remote_code=trust_remote_code, local_files_only=source.local
        )


def load_settings(source: ModelSource, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """Return the model's own configuration, its `config.json`, without loading weights.

    Raises:
        ModelLoadError: It cannot be found, read or downloaded.
    """
    from transformers import AutoConfig

    with _translated(source):
        return AutoConfig.from_pretrained(
            source.location, trust_remote_code=trust_remote_code, local_files_only=source.local
        )


def load_model(
    source: ModelSource,
    *,
    dtype: torch.dtype,
    device: torch.device,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    quantization: BaseQuantization | None = None,
) -> PreTrainedModel:
    """Return the causal language model on `device`, weights in `dtype`, in evaluation mode.

    With `quantization` its linear layers are packed one by one while they are read; the dense model never exists.

    Raises:
        QuantizationError: A weight that the scheme cannot hold.
        UnknownNameError: A layer to skip that the model lacks.
        ModelLoadError: It cannot be found, read or downloaded, its files lack weights or hold others, or it is packed already
            and `quantization` asks to pack it.
        OutOfMemoryError: It does not fit the device.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"attn_implementation": attn_implementation} if attn_implementation else {}
    options |= _packing(source, quantization, load_settings(source, trust_remote_code=trust_remote_code))
    with _translated(source), translate_torch_errors(doing=f"load {source.asked}", device=device):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.location,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            local_files_only=source.local,
            # Both so that what does not fit is refused here by name, not filled with noise or told in a table.
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
        model, found = loaded
        _check_complete(source, found)
        return model.to(device)


def longest_input(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model can read at once, `None` where its config names no limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


@contextmanager
def quiet_transformers(*, bars: bool = False) -> Generator[None]:
    """Silence transformers inside the block: what matters of its reports is raised, most bars last a moment.

    Args:
        bars: Leave its progress bars on.
    """
    from transformers.utils import logging as transformers_logging

    level, shown = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not bars:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()


def _check_complete(source: ModelSource, found: dict[str, Any]) -> None:
    """Refuse files that left a weight at its random first value: it would differ in every run, and mean nothing."""
    other = [f"{name} is {list(file)}, not {list(model)}" for name, file, model in sorted(found["mismatched_keys"])]
    if other:
        _refuse(source, "hold weights of another shape than its config.json says", other)
    if missing := sorted(found["missing_keys"]):
        _refuse(source, "lack weights", missing)


def _refuse(source: ModelSource, what: str, named: list[str]) -> None:
    more = f" and {len(named) - 1} more" if len(named) > 1 else ""
    raise ModelLoadError(
        f"The files of {source.asked} {what}: {named[0]}{more}.",
        base_model=source.asked,
        remedy="Get the whole model again; if it was made for another task than writing text, choose another one.",
    )


def _packing(source: ModelSource, quantization: BaseQuantization | None, settings: PretrainedConfig) -> dict[str, Any]:
    """Return what transformers is told about packing; a model that is packed already loads as its files say."""
    from bedstone.quant import BedstoneConfig  # makes transformers know the method, also of files that are packed

    packed: Any = getattr(settings, "quantization_config", None)
    if quantization is None:
        return {}
    if packed is not None:
        method = packed.get("quant_method", "unknown") if isinstance(packed, dict) else packed.quant_method
        raise ModelLoadError(
            f"{source.asked} is packed already (by {method}), and the configuration asks to pack it as {quantization.scheme.name}.",
            base_model=source.asked,
            remedy="Remove `load_in_4bit`, `load_in_8bit` or `quantization`, or start from the dense model.",
        )
    config = BedstoneConfig(quantization.scheme, skip=quantization.skip, modules_to_save=quantization.trained)
    return {"quantization_config": config}


@contextmanager
def _translated(source: ModelSource) -> Generator[None]:
    if not source.local:
        _check_network(source)
    with quiet_transformers(bars=not source.local):  # a download keeps its bar
        try:
            yield
        except CoreError:
            raise
        except (
            Exception
        ) as error:  # of transformers, tokenizers, safetensors or the model's own code: they share no class
            raise _load_error(source, error) from error


def _check_network(source: ModelSource) -> None:
    """Ask the hub once for a model that was never downloaded: transformers would retry for a minute before it says so."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(try_to_load_from_cache(source.location, "config.json"), str):
        return
    try:
        get_hf_file_metadata(hf_hub_url(source.location, "config.json"), timeout=_NETWORK_TIMEOUT_S)
    except HfHubHTTPError as error:
        if error.response.status_code < 500:  # noqa: PLR2004 - the server's own trouble may pass: transformers retries
            raise _load_error(source, error) from error
    except Exception as error:  # the classes are those of whichever HTTP library the hub uses at present
        raise _load_error(source, error) from error


def _load_error(source: ModelSource, error: Exception) -> ModelLoadError:
    said = " ".join(str(error).split()) or type(error).__name__
    said = said if len(said) <= _SHOWN_CHARS else said[:_SHOWN_CHARS].rsplit(" ", 1)[0] + " ..."
    said = said if said.endswith((".", "?", "!")) else f"{said}."
    if source.local:
        return ModelLoadError(
            f"The model in {source.location} could not be loaded: {said}",
            base_model=source.asked,
            remedy="Check that the folder is complete: config.json, tokenizer files, *.safetensors.",
        )
    return ModelLoadError(
        f"`{source.argument}` (={source.asked!r}) is no file or folder here and could not be had from the hub: {said}",
        base_model=source.asked,
        remedy="Check the spelling and the network (and HF_TOKEN for a gated model), or download it elsewhere and give "
        "the folder's path.",
    )
