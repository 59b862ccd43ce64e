"""Kernels in Triton, for GPUs: packed weights of every format by the same five kernels.

Nothing here imports Triton but the modules whose names begin with `triton_`, and those are imported when they are first called.
"""
