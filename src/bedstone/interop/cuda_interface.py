"""Takes GPU arrays that speak the CUDA array interface and not DLPack, as Numba's do.

Never run on a GPU: only what is refused without one is tested.

References:
    CUDA array interface, version 3, https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html.
"""

from __future__ import annotations

from typing import Any

import torch

from bedstone.core.torch_errors import translate_torch_errors
from bedstone.interop.sharing import SharingError


def tensor_from_cuda_interface(source: Any, *, copy: bool) -> torch.Tensor:
    """Return a tensor on the memory of an object with `__cuda_array_interface__`, on the current GPU.

    Args:
        source: The object; its memory lives as long as the tensor. torch's current stream waits for the one it names.
        copy: Return a private copy instead; `False` never copies.

    Returns:
        The tensor, with the shape and strides of the object.

    Raises:
        SharingError: This torch has no CUDA; or the memory is read-only or on another GPU and no copy was asked for.
    """
    kind, facts = type(source).__name__, source.__cuda_array_interface__
    if not torch.cuda.is_available():
        message = f"The memory of a {kind} lies on a GPU, which this PyTorch cannot use."
        raise SharingError(message, remedy="Copy it to the host in its own framework, or install a PyTorch with CUDA.")
    pointer, read_only = facts["data"]
    if read_only and not copy:
        message = f"The memory of this {kind} is read-only, and a tensor can always be written."
        raise SharingError(message, remedy="Pass copy=True, or make it writable first.")
    with translate_torch_errors(doing=f"take the memory of a {kind}"):
        if stream := facts.get("stream"):
            torch.cuda.current_stream().wait_stream(torch.cuda.ExternalStream(stream))
        tensor = torch.as_tensor(source, device="cuda")
    if tensor.data_ptr() not in {pointer, 0} and not copy:
        message = f"The memory of this {kind} does not lie on the current GPU, {tensor.device}."
        raise SharingError(message, remedy="Work under `with torch.cuda.device(...)` of its GPU, or pass copy=True.")
    return tensor.clone() if copy else tensor
