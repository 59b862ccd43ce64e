"""Weights of four bits with one scale a block: NF4 and FP4, and their double quantization.

>>> import torch
>>> packed, absmax = quantize_4bit(torch.linspace(-1, 1, 64), 64, "nf4")
>>> packed.shape, absmax
(torch.Size([32]), tensor([1.]))
>>> dequantize_4bit(packed, absmax, None, None, [2, 32], 64, "nf4", torch.float32)[0, 0]
tensor(-1.)
"""

from bedstone.kernels.fourbit.op import dequantize_4bit as dequantize_4bit
from bedstone.kernels.fourbit.op import linear_4bit as linear_4bit
from bedstone.kernels.fourbit.op import linear_4bit_input_grad as linear_4bit_input_grad
from bedstone.kernels.fourbit.op import quantize_4bit as quantize_4bit
from bedstone.kernels.fourbit.op import quantize_absmax as quantize_absmax

__all__ = ["dequantize_4bit", "linear_4bit", "linear_4bit_input_grad", "quantize_4bit", "quantize_absmax"]
