"""Triton's interpreter, with bfloat16 as GPUs have it.

As of Triton 3.9 the interpreter keeps bfloat16 as uint16, cuts float32 off where GPUs round to the nearest, and `tl.dot` multiplies the integers. The
two functions here do what GPUs do, by torch. Everything else is the interpreter's own.
"""

from __future__ import annotations


def mend() -> None:
    """Mend the interpreter of this process; it must have been switched on (TRITON_INTERPRET=1)."""
    import numpy as np
    import torch
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    cast, dot = builder.cast_impl, builder.create_dot

    def mended_cast(self, src, dst_type):
        if src.dtype.scalar == tl.float32 and dst_type.scalar == tl.bfloat16:
            rounded = torch.from_numpy(np.ascontiguousarray(src.data)).bfloat16().view(torch.int16)
            return interpreter.TensorHandle(rounded.numpy().view(np.uint16), tl.bfloat16)
        return cast(self, src, dst_type)

    def mended_dot(self, a, b, d, *options):
        if a.dtype.scalar == tl.bfloat16:
            a, b = (cast(self, each, tl.float32) for each in (a, b))
        elif a.dtype.scalar == tl.float16:  # numpy's product of halves is a plain loop
            a, b = (interpreter.TensorHandle(each.data.astype(np.float32), tl.float32) for each in (a, b))
        return dot(self, a, b, d, *options)

    builder.cast_impl, builder.create_dot = mended_cast, mended_dot
    builder.create_fp_trunc = lambda self, src, dst_type: self.cast_impl(src, dst_type)
