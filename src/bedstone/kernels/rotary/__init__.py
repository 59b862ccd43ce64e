"""Rotary position embedding of queries and keys.

>>> import torch
>>> q, k = rope(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2), torch.zeros(1, 2), torch.ones(1, 2))  # a quarter turn
>>> q.flatten()
tensor([-1.,  1.])
"""

from bedstone.kernels.rotary.op import rope as rope

__all__ = ["rope"]
