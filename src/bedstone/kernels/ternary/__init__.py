"""Ternary weights, four a byte, with one scale a tensor, a row or a block of a row.

>>> import torch
>>> packed, scale = quantize_ternary(torch.tensor([[0.9, -1.1, 0.1, 0.0]]), 4, True)
>>> dequantize_ternary(packed, scale, [1, 4], 4, torch.float32)
tensor([[ 0.5250, -0.5250,  0.0000,  0.0000]])
"""

from bedstone.kernels.ternary.op import dequantize_ternary as dequantize_ternary
from bedstone.kernels.ternary.op import linear_ternary as linear_ternary
from bedstone.kernels.ternary.op import linear_ternary_input_grad as linear_ternary_input_grad
from bedstone.kernels.ternary.op import quantize_ternary as quantize_ternary

__all__ = ["dequantize_ternary", "linear_ternary", "linear_ternary_input_grad", "quantize_ternary"]
