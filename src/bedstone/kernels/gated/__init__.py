"""Gated units: SwiGLU and GeGLU.

>>> import torch
>>> glu(torch.zeros(2), torch.ones(2), "gelu")
tensor([0., 0.])
"""

from bedstone.kernels.gated.op import glu as glu

__all__ = ["glu"]
