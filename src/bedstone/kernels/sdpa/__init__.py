"""Attention: of batches, and of packed documents.

>>> import torch
>>> one = torch.ones(1, 1, 1, 2)
>>> attention(one, one, one).flatten()
tensor([1., 1.])
"""

from bedstone.kernels.sdpa.op import attention as attention
from bedstone.kernels.sdpa.op import attention_varlen as attention_varlen

__all__ = ["attention", "attention_varlen"]
