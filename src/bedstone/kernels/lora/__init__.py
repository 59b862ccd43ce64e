"""Projections with LoRA that keep less for the backward pass than their parts would.

>>> import torch
>>> one = LoraProjection(torch.eye(2), torch.zeros(1, 2), torch.zeros(2, 1), 1.0)
>>> query, key = lora_linear(torch.ones(1, 2), one, one)
>>> query
tensor([[1., 1.]])
"""

from bedstone.kernels.lora.op import LoraProjection as LoraProjection
from bedstone.kernels.lora.op import lora_linear as lora_linear
from bedstone.kernels.lora.op import lora_mlp as lora_mlp

__all__ = ["LoraProjection", "lora_linear", "lora_mlp"]
