"""Operations on packed weights and of training, one folder each; every one runs in the best implementation that can, and says which.

Importing a folder registers its operations with torch and does nothing else.

>>> with policy("reference"):
...     print(explain("int8_dequantize", shape=(4096, 4096)))
dequantize_8bit on cpu, float32, 4096x4096: reference (exact)
  not triton: the policy is `reference`
  not native: the policy is `reference`
"""

from bedstone.kernels.ask import explain as explain
from bedstone.kernels.ask import operation as operation
from bedstone.kernels.ask import select as select
from bedstone.kernels.ask import why_not_again as why_not_again
from bedstone.kernels.bench import tune as tune
from bedstone.kernels.choice import KernelChoice as KernelChoice
from bedstone.kernels.choice import KernelFallback as KernelFallback
from bedstone.kernels.cross_entropy import chunked_cross_entropy as chunked_cross_entropy
from bedstone.kernels.cross_entropy import linear_cross_entropy as linear_cross_entropy
from bedstone.kernels.gated import glu as glu
from bedstone.kernels.graphs import FUSION_HINTS as FUSION_HINTS
from bedstone.kernels.graphs import FusionHint as FusionHint
from bedstone.kernels.graphs import Rewrite as Rewrite
from bedstone.kernels.graphs import RewriteError as RewriteError
from bedstone.kernels.graphs import rewrite as rewrite
from bedstone.kernels.graphs import rewrite_all as rewrite_all
from bedstone.kernels.implementation import KernelExtension as KernelExtension
from bedstone.kernels.implementation import KernelImpl as KernelImpl
from bedstone.kernels.implementation import KernelSpec as KernelSpec
from bedstone.kernels.implementation import extensions as extensions
from bedstone.kernels.library import workspace_bytes as workspace_bytes
from bedstone.kernels.modules import Applied as Applied
from bedstone.kernels.modules import ApplyReport as ApplyReport
from bedstone.kernels.modules import KernelsApplied as KernelsApplied
from bedstone.kernels.modules import ModuleReport as ModuleReport
from bedstone.kernels.modules import Replacement as Replacement
from bedstone.kernels.modules import apply as apply
from bedstone.kernels.modules import replacements as replacements
from bedstone.kernels.modules import restore as restore
from bedstone.kernels.modules import sample_rows as sample_rows
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
    "FUSION_HINTS",
    "Applied",
    "ApplyReport",
    "FusionHint",
    "KernelChoice",
    "KernelExtension",
    "KernelFallback",
    "KernelImpl",
    "KernelOp",
    "KernelSpec",
    "KernelsApplied",
    "ModuleReport",
    "Replacement",
    "Rewrite",
    "RewriteError",
    "apply",
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
    "replacements",
    "restore",
    "rewrite",
    "rewrite_all",
    "rms_norm",
    "rope",
    "sample_rows",
    "select",
    "tune",
    "why_not_again",
    "workspace_bytes",
]
