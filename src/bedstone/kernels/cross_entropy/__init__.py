"""Cross-entropy in parts: of the output head's input, without ever holding all logits, and of logits that exist.

>>> import torch
>>> hidden, weight = torch.eye(2), 100 * torch.eye(2)
>>> linear_cross_entropy(hidden, weight, torch.tensor([0, 1])).item()
0.0
"""

from bedstone.kernels.cross_entropy.from_logits import chunked_cross_entropy as chunked_cross_entropy
from bedstone.kernels.cross_entropy.op import linear_cross_entropy as linear_cross_entropy

__all__ = ["chunked_cross_entropy", "linear_cross_entropy"]
