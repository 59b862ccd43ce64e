"""Operations on packed weights, one folder a weight format; each runs in the best implementation that can, and says which.

Importing a folder registers its operations with torch and does nothing else.

>>> import bedstone.kernels.fourbit
>>> print(explain("linear_4bit", device="cuda", shape=(1, 4096, 4096)))
linear_4bit on cuda, torch.float32, 1x4096x4096: reference (exact)
  not native: the compiled CPU library runs on cpu, not on cuda
"""

from bedstone.kernels.library import workspace_bytes as workspace_bytes
from bedstone.kernels.registry import KernelChoice as KernelChoice
from bedstone.kernels.registry import KernelFallback as KernelFallback
from bedstone.kernels.registry import KernelImpl as KernelImpl
from bedstone.kernels.registry import KernelOp as KernelOp
from bedstone.kernels.registry import KernelSpec as KernelSpec
from bedstone.kernels.registry import explain as explain
from bedstone.kernels.registry import operations as operations
from bedstone.kernels.registry import policy as policy
from bedstone.kernels.registry import select as select

__all__ = [
    "KernelChoice",
    "KernelFallback",
    "KernelImpl",
    "KernelOp",
    "KernelSpec",
    "explain",
    "operations",
    "policy",
    "select",
    "workspace_bytes",
]
