"""Operations on packed weights, one folder a weight format; each runs in the best implementation that can, and says which.

Importing a folder registers its operations with torch and does nothing else.

>>> print(explain("nf4_linear", device="cuda", shape=(1, 4096, 4096)))
linear_4bit on cuda, torch.float32, 1x4096x4096: reference (exact)
  not native: the compiled CPU library runs on cpu, not on cuda
"""

from bedstone.kernels.ask import explain as explain
from bedstone.kernels.ask import operation as operation
from bedstone.kernels.ask import select as select
from bedstone.kernels.library import workspace_bytes as workspace_bytes
from bedstone.kernels.policies import current_policy as current_policy
from bedstone.kernels.policies import policy as policy
from bedstone.kernels.registry import KernelChoice as KernelChoice
from bedstone.kernels.registry import KernelExtension as KernelExtension
from bedstone.kernels.registry import KernelFallback as KernelFallback
from bedstone.kernels.registry import KernelImpl as KernelImpl
from bedstone.kernels.registry import KernelOp as KernelOp
from bedstone.kernels.registry import KernelSpec as KernelSpec
from bedstone.kernels.registry import extensions as extensions
from bedstone.kernels.registry import forget_choices as forget_choices
from bedstone.kernels.registry import operations as operations

__all__ = [
    "KernelChoice",
    "KernelExtension",
    "KernelFallback",
    "KernelImpl",
    "KernelOp",
    "KernelSpec",
    "current_policy",
    "explain",
    "extensions",
    "forget_choices",
    "operation",
    "operations",
    "policy",
    "select",
    "workspace_bytes",
]
