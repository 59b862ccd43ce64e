"""A packed model made ready for adapters: frozen, with norms and gradient checkpointing as asked for.

peft's `prepare_model_for_kbit_training` does the same for bitsandbytes, and more than is good here: it turns every half-precision
parameter into float32, embeddings and output head with the rest, and it leaves gradient checkpointing out, without a word, when
it does not know the quantization.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from bedstone.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

Model = TypeVar("Model", bound=nn.Module)


def prepare_for_adapters(model: Model, *, norms_in_fp32: bool = False, gradient_checkpointing: bool = False) -> Model:
    """Freeze a model before `get_peft_model`; packed weights stay packed.

    Args:
        model: Packed or not; it is changed in place.
        norms_in_fp32: Turn the parameters of normalisation layers into float32. In a half-precision model their output is float32
            from there on, which packed layers take; a dense half-precision layer needs autocast then.
        gradient_checkpointing: Compute activations again in the backward pass instead of keeping them, as transformers offers
            it. The output of the embedding then requires a gradient, without which checkpoints of a frozen model have none.

    Returns:
        The same model.

    Raises:
        UnsupportedError: Gradient checkpointing of a model that has none; nothing was changed.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.LayerNorm(64)).bfloat16()
    >>> model = prepare_for_adapters(model, norms_in_fp32=True)
    >>> model[0].weight.dtype, model[1].weight.dtype, model[1].weight.requires_grad
    (torch.bfloat16, torch.float32, False)
    """
    if gradient_checkpointing and not hasattr(model, "enable_input_require_grads"):
        message = f"A {type(model).__name__} has no gradient checkpointing; models of transformers have."
        raise UnsupportedError(message, feature="gradient_checkpointing", remedy="Leave `gradient_checkpointing` out.")
    model.requires_grad_(requires_grad=False)
    if norms_in_fp32:
        for norm in _norms(model):
            norm.float()
    if gradient_checkpointing:
        _checkpoint(model)
    return model


def _norms(model: nn.Module) -> Iterator[nn.Module]:
    """Normalisation layers: torch's, and those that say so at the end of their name, as `LlamaRMSNorm`."""
    known = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)  # noqa: SLF001 - all batch norms
    return (module for module in model.modules() if isinstance(module, known) or type(module).__name__.endswith("Norm"))


def _checkpoint(model: Any) -> None:
    # Without re-entry no input needs a gradient; with it, which a trainer may choose later, the first one does.
    model.enable_input_require_grads()
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
