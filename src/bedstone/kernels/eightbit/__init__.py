"""Weights of one byte with one absmax a block of a row, a row or a tensor: int8, float8_e4m3fn, float8_e5m2.

>>> import torch
>>> codes, absmax = quantize_8bit(torch.tensor([[1.0, -2.0]]), torch.int8, 2, False)
>>> codes, absmax
(tensor([[  64, -127]], dtype=torch.int8), tensor([[2.]]))
>>> dequantize_8bit(codes, absmax, 2, torch.float32)
tensor([[ 1.0079, -2.0000]])
"""

from bedstone.kernels.eightbit.op import dequantize_8bit as dequantize_8bit
from bedstone.kernels.eightbit.op import linear_8bit as linear_8bit
from bedstone.kernels.eightbit.op import linear_8bit_input_grad as linear_8bit_input_grad
from bedstone.kernels.eightbit.op import quantize_8bit as quantize_8bit

__all__ = ["dequantize_8bit", "linear_8bit", "linear_8bit_input_grad", "quantize_8bit"]
