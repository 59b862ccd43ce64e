"""A tokenizer and a model from a located source; transformers does the work, its failures become ours."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bedstone.core.torch_errors import translate_torch_errors
from bedstone.train.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Generator

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bedstone.train.models.source import ModelSource


def load_tokenizer(source: ModelSource, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model; one without a padding token pads with its end-of-text token.

    Raises:
        ModelLoadError: It cannot be found, read or downloaded, or has no end-of-text token.
    """
    from transformers import AutoTokenizer

    with _translated(source):
        tokenizer = AutoTokenizer.from_pretrained(
            source.location, trust_remote_code=trust_remote_code, local_files_only=source.local
        )
    if tokenizer.eos_token_id is None:
        message = f"The tokenizer of {source.asked} has no end-of-text token, so a model could not learn to stop."
        raise ModelLoadError(message, base_model=source.asked, remedy="Set `eos_token` in its tokenizer_config.json.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # harmless: padding is masked by position, never by its id
    return tokenizer


def load_model(
    source: ModelSource,
    *,
    dtype: torch.dtype,
    device: torch.device,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Return the causal language model on `device`, weights in `dtype`, in evaluation mode.

    Raises:
        ModelLoadError: It cannot be found, read or downloaded.
        OutOfMemoryError: It does not fit the device.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"attn_implementation": attn_implementation} if attn_implementation else {}
    with _translated(source), translate_torch_errors(doing=f"load {source.asked}", device=device):
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.location,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            local_files_only=source.local,
            **options,
        )
        return model.to(device)


@contextmanager
def _translated(source: ModelSource) -> Generator[None]:
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    if source.local:  # a fraction of a second; a download keeps its bar
        transformers_logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        if isinstance(error, ModelLoadError):
            raise
        raise _load_error(source, error) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


def _load_error(source: ModelSource, error: Exception) -> ModelLoadError:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if source.local:
        return ModelLoadError(
            f"The model in {source.location} could not be loaded: {first_line}",
            base_model=source.asked,
            remedy="Check that the folder is complete: config.json, tokenizer files, *.safetensors.",
        )
    return ModelLoadError(
        f"`base_model` (={source.asked!r}) is no file or folder here and could not be had from the hub: {first_line}",
        base_model=source.asked,
        remedy="Check the spelling and the network (and HF_TOKEN for a gated model), or download it elsewhere and give "
        "the folder's path.",
    )
