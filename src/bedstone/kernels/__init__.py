"""Operations on packed weights, one folder a weight format; each runs in the best implementation that can, and says which.

Importing a folder registers its operations with torch and does nothing else.

>>> with policy("reference"):
...     print(explain("nf4_linear", shape=(1, 4096, 4096)))
linear_4bit on cpu, float32, 1x4096x4096: reference (exact)
  not bitsandbytes: the policy is `reference`
  not triton: the policy is `reference`
  not native: the policy is `reference`
"""

from bedstone.kernels.ask import explain as explain
from bedstone.kernels.ask import operation as operation
from bedstone.kernels.ask import select as select
from bedstone.kernels.bench import tune as tune
from bedstone.kernels.choice import KernelChoice as KernelChoice
from bedstone.kernels.choice import KernelFallback as KernelFallback
from bedstone.kernels.cross_entropy import chunked_cross_entropy as chunked_cross_entropy
from bedstone.kernels.cross_entropy import linear_cross_entropy as linear_cross_entropy
from bedstone.kernels.gated import glu as glu
from bedstone.kernels.implementation import KernelExtension as KernelExtension
from bedstone.kernels.implementation import KernelImpl as KernelImpl
from bedstone.kernels.implementation import KernelSpec as KernelSpec
from bedstone.kernels.implementation import extensions as extensions
from bedstone.kernels.library import workspace_bytes as workspace_bytes
from bedstone.kernels.norms import layer_norm as layer_norm
from bedstone.kernels.norms import rms_norm as rms_norm
from bedstone.kernels.pins import pinned as pinned
from bedstone.kernels.policies import current_policy as current_policy
from bedstone.kernels.policies import policy as policy
from bedstone.kernels.registry import KernelOp as KernelOp
from bedstone.kernels.registry import chosen_kernels as chosen_kernels
from bedstone.kernels.registry import forget_choices as forget_choices
from bedstone.kernels.registry import operations as operations
from bedstone.kernels.rotary import rope as rope
from bedstone.kernels.sdpa import attention as attention
from bedstone.kernels.sdpa import attention_varlen as attention_varlen

__all__ = [
    "KernelChoice",
    "KernelExtension",
    "KernelFallback",
    "KernelImpl",
    "KernelOp",
    "KernelSpec",
    "attention",
    "attention_varlen",
    "chosen_kernels",
    "chunked_cross_entropy",
    "current_policy",
    "explain",
    "extensions",
    "forget_choices",
    "glu",
    "layer_norm",
    "linear_cross_entropy",
    "operation",
    "operations",
    "pinned",
    "policy",
    "rms_norm",
    "rope",
    "select",
    "tune",
    "workspace_bytes",
]
